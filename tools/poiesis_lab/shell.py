"""Run programs, wait for conditions, and report progress: one line per step, with its duration."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from poiesis_lab import cache
from poiesis_lab.errors import LabError

_TAIL_LINES = 25


_unfinished: list[object] = []  # the step whose line has no outcome yet, if any
_terminal = threading.Lock()  # steps of several threads take turns


def report(text: str) -> None:
    """Print a line of progress to stderr; stdout is for results."""
    with _terminal:
        _end_line()
        print(text, file=sys.stderr, flush=True)


def _end_line() -> None:
    if _unfinished:
        print(file=sys.stderr)
        _unfinished.clear()


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print `name` and the duration of the block, on one line unless other lines come between."""
    started, this = time.monotonic(), object()
    with _terminal:
        _end_line()
        print(f"  {name} ...", end="", file=sys.stderr, flush=True)
        _unfinished.append(this)
    try:
        yield
    except BaseException:
        _end_step(name, this, f"failed after {time.monotonic() - started:.1f} s")
        raise
    _end_step(name, this, f"{time.monotonic() - started:.1f} s")


def _end_step(name: str, this: object, outcome: str) -> None:
    with _terminal:
        if _unfinished == [this]:
            _unfinished.clear()
            print(f" {outcome}", file=sys.stderr, flush=True)
        else:
            _end_line()
            print(f"  {name}: {outcome}", file=sys.stderr, flush=True)


class CommandFailed(LabError):
    def __init__(self, command: Sequence[str], code: int, output: str) -> None:
        log = _keep(output)
        tail = "\n".join(output.strip().splitlines()[-_TAIL_LINES:])
        super().__init__(f"`{' '.join(command)}` ended with {code}; its output is in {log}\n{tail}")
        self.code = code
        self.output = output


def _keep(output: str) -> Path:
    path = cache.directory() / "log" / f"failed-{os.getpid()}-{time.monotonic_ns()}.log"
    path.parent.mkdir(exist_ok=True)
    path.write_text(output)
    return path


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input_text: str | None = None,
    stdin: BinaryIO | None = None,
    timeout: float | None = None,
) -> str:
    """Return the stdout of `command`, or raise CommandFailed. `env`: additional environment variables."""
    argv = [str(part) for part in command]
    try:
        done = subprocess.run(
            argv,
            cwd=cwd,
            env={**os.environ, **env} if env else None,
            input=input_text.encode() if input_text is not None else None,
            stdin=None if input_text is not None else stdin or subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} is not installed; it is needed for `{' '.join(argv)}`") from error
    except subprocess.TimeoutExpired as error:
        partial = (error.stdout or b"") + (error.stderr or b"")
        raise CommandFailed(
            argv, 124, f"no end after {timeout} s\n{partial.decode(errors='replace')}"
        ) from error
    printed = (done.stdout or b"").decode(errors="replace")
    if done.returncode:
        raise CommandFailed(argv, done.returncode, printed + done.stderr.decode(errors="replace"))
    return printed


def succeeds(command: Sequence[str | Path], timeout: float = 20) -> bool:
    """Return whether `command` exits with 0 in time; discard its output."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def wait_until(
    condition: Callable[[], bool],
    what: str,
    *,
    seconds: float,
    hint: Callable[[], str] = str,
    every: float = 0.2,
) -> None:
    """Poll `condition` until it is true; raise LabError with `what` and `hint()` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:.0f} s\n{hint()}".strip())
        time.sleep(every)
