"""rclone as a child process, controlled by its remote control API over a Unix socket.

One process serves the whole work list: it keeps connections and listings, and starting a process per file
would take longer than most files.
"""

import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from poiesis_rclone.answers import failure
from poiesis_transfer import pool
from poiesis_transfer.errors import Permanent, Retryable, TransferError

_START_SECONDS = 60
_TICK_SECONDS = 0.02
_END_SECONDS = 10
_OK = 200
_CANNOT_START = 1  # rclone's exit code for invalid options and variables
_MEMORY = "384MiB"  # of the 512 MiB that the chart grants a filer
_OPTIONS = (
    "--rc-no-auth",
    "--ignore-times",  # an existing file of the same size may have other content
    "--fs-cache-expire-duration=24h",  # longer than any filer runs: stores stay open
    "--low-level-retries=4",
    "--contimeout=15s",
    "--timeout=60s",
    "--buffer-size=4M",
    "--log-level=ERROR",
)


Meaning = Callable[[str, str, int, Iterable[str]], TransferError]  # as `answers.failure`


class _Connection(http.client.HTTPConnection):
    """A connection to a Unix socket. `broken`: an interrupt shut it down during a call."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("rclone", timeout=timeout)
        self._path = path
        self.broken = False

    def connect(self) -> None:
        self.sock = _socket(self._path, self.timeout)

    def shut(self) -> None:
        self.broken = True
        with suppress(OSError):  # already closed
            self.sock.shutdown(socket.SHUT_RDWR)


class Rclone:
    """rclone's remote control, callable from any thread. No error message contains one of `secrets`."""

    def __init__(self, path: Path, secrets: Sequence[str]) -> None:
        self._path = path
        self._secrets = secrets
        self._lock = threading.Lock()
        self._busy: set[_Connection] = set()

    def call(
        self,
        command: str,
        what: str,
        *,
        timeout: float | None = None,
        meaning: Meaning = failure,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Call a command and return the response. Raise the TransferError that `meaning` returns.

        Error messages start with `what`. Without `timeout` (seconds), rclone's own timeouts apply.
        """
        connection = _Connection(self._path, timeout)
        try:
            with self._interruptible(connection):
                pool.check()  # from now on, an interrupt shuts the connection down
                headers = {"Content-Type": "application/json"}
                connection.request("POST", f"/{command}", json.dumps(parameters), headers)
                response = connection.getresponse()
                answer: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            if connection.broken:
                raise pool.Cancelled from error
            raise Retryable(f"{what}: rclone exited unexpectedly") from error
        finally:
            connection.close()
        if response.status != _OK:
            raise meaning(what, str(answer.get("error", "")), response.status, self._secrets)
        return answer

    def interrupt(self) -> None:
        """End all waits for responses; rclone cancels the calls."""
        with self._lock:
            for connection in self._busy:
                connection.shut()

    @contextmanager
    def _interruptible(self, connection: _Connection) -> Iterator[None]:
        connection.connect()
        with self._lock:
            self._busy.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._busy.remove(connection)


@contextmanager
def running(config: Path, run: Path, secrets: Sequence[str], env: Mapping[str, str]) -> Iterator[Rclone]:
    """Run rclone with the remotes of `config` until the block ends. Raise TransferError."""
    path = run / "rclone.sock"
    path.unlink(missing_ok=True)  # left by a killed filer
    process = subprocess.Popen(
        ["rclone", "rcd", f"--rc-addr=unix://{path}", f"--config={config}", *_OPTIONS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # it may contain responses of the remote control with credentials
        env={"GOMEMLIMIT": _MEMORY, "HOME": str(run), **env},
    )
    try:
        _wait_until_it_answers(process, path)
        yield Rclone(path, secrets)
    finally:
        _end(process)
        path.unlink(missing_ok=True)


def _wait_until_it_answers(process: subprocess.Popen[bytes], path: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _listens(path):
        if process.poll() == _CANNOT_START:
            raise Permanent("rclone cannot start: check rclone.conf and the variables in the filer's `env`")
        if process.poll() is not None:
            raise Retryable(f"rclone cannot start: it exited with {process.returncode}")
        if time.monotonic() > deadline:
            raise Retryable(f"rclone did not respond within {_START_SECONDS} s")
        time.sleep(_TICK_SECONDS)


def _listens(path: Path) -> bool:
    try:
        _socket(path, _END_SECONDS).close()
    except OSError:
        return False
    return True


def _socket(path: Path, timeout: float | None) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(timeout)
        made.connect(str(path))
    except OSError:
        made.close()
        raise
    return made


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop rclone by SIGTERM, and after a timeout by SIGKILL."""
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
