"""Print the demo's progress; without colours if the output is not a terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_BOLD, _GREEN, _RED, _DIM, _END = "\033[1m", "\033[32m", "\033[31m", "\033[2m", "\033[0m"
_COLOURS = {"COMPLETE": _GREEN, "EXECUTOR_ERROR": _RED, "SYSTEM_ERROR": _RED, "CANCELED": _RED}


def _styled(text: str, style: str) -> str:
    return f"{style}{text}{_END}" if sys.stdout.isatty() else text


def line(text: str = "") -> None:
    """Print a line."""
    print(text, flush=True)


def heading(text: str) -> None:
    """Print the heading of a part."""
    line(f"\n{_styled(text, _BOLD)}")


def quoted(text: str) -> None:
    """Print the output of another program, indented."""
    for part in text.rstrip().splitlines():
        line(f"    {part}")


def failure(text: str, what_to_do: str) -> None:
    """Print a failure and advice."""
    line(f"\n{_styled('The demo failed.', _RED)} {text}\n\n{what_to_do}")


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print `name`, and its duration when the block is done."""
    line(f"{_styled('▸', _BOLD)} {name}")
    started = time.monotonic()
    yield
    line(f"  {_styled(f'done in {time.monotonic() - started:.1f} s', _DIM)}")


def state(name: str, seconds: float) -> None:
    """Print a state of the task, `seconds` after its creation."""
    line(f"  {seconds:6.1f} s  {_styled(name, _COLOURS.get(name, _BOLD))}")
