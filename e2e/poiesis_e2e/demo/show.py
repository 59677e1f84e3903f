"""What the demo prints: steps with their time, plain where the output is no terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_BOLD, _GREEN, _RED, _DIM, _END = "\033[1m", "\033[32m", "\033[31m", "\033[2m", "\033[0m"
_COLOURS = {"COMPLETE": _GREEN, "EXECUTOR_ERROR": _RED, "SYSTEM_ERROR": _RED, "CANCELED": _RED}


def _styled(text: str, style: str) -> str:
    return f"{style}{text}{_END}" if sys.stdout.isatty() else text


def say(text: str = "") -> None:
    """A line."""
    print(text, flush=True)


def heading(text: str) -> None:
    """A part begins."""
    say(f"\n{_styled(text, _BOLD)}")


def quoted(text: str) -> None:
    """Somebody else's words."""
    for line in text.rstrip().splitlines():
        say(f"    {line}")


def failure(text: str, what_to_do: str) -> None:
    """It did not work."""
    say(f"\n{_styled('The demo did not work.', _RED)} {text}\n\n{what_to_do}")


@contextmanager
def step(name: str) -> Iterator[None]:
    """Announce `name`; when it is done, say how long it took."""
    say(f"{_styled('▸', _BOLD)} {name}")
    started = time.monotonic()
    yield
    say(f"  {_styled(f'done in {time.monotonic() - started:.1f} s', _DIM)}")


def state(name: str, seconds: float) -> None:
    """A state of the task, `seconds` after its creation."""
    say(f"  {seconds:6.1f} s  {_styled(name, _COLOURS.get(name, _BOLD))}")
