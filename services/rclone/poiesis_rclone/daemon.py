"""rclone as a child process that is asked by its remote control, over a Unix socket.

One process for the whole work list: it keeps connections and knows what it lists, and a new one for each file
would cost more than most files.
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
from poiesis_transfer.errors import Retryable, Permanent, TransferError

_START_SECONDS = 60
_TICK_SECONDS = 0.02
_END_SECONDS = 10
_OK = 200
_CANNOT_START = 1  # rclone's exit code for options and variables that it cannot use
_MEMORY = "384MiB"  # of the 512 that the chart gives a filer
_OPTIONS = (
    "--rc-no-auth",
    "--ignore-times",  # a file that is there may be another one of the same size
    "--fs-cache-expire-duration=24h",  # longer than any filer runs: stores stay open
    "--low-level-retries=4",
    "--contimeout=15s",
    "--timeout=60s",
    "--buffer-size=4M",
    "--log-level=ERROR",
)


Meaning = Callable[[str, str, int, Iterable[str]], TransferError]  # as `answers.failure`


class _Connection(http.client.HTTPConnection):
    """To a Unix socket. `broken`: by us, while somebody waited for the answer."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("rclone", timeout=timeout)
        self._path = path
        self.broken = False

    def connect(self) -> None:
        self.sock = _socket(self._path, self.timeout)

    def shut(self) -> None:
        self.broken = True
        with suppress(OSError):  # it has ended by itself
            self.sock.shutdown(socket.SHUT_RDWR)


class Rclone:
    """Calls of rclone's remote control, from any thread; no message has one of `secrets`."""

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
        """rclone's answer; raise TransferError, in which `what` says what was tried, as `meaning` gives it.

        Without a `timeout` (seconds) rclone's own ones end what hangs.
        """
        connection = _Connection(self._path, timeout)
        try:
            with self._interruptible(connection):
                pool.check()  # who is interrupted from now on finds the connection
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
        """Nobody waits for an answer any more; rclone gives up what it was asked for."""
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
    """rclone with the remotes of `config`, from when it answers until the end; raise TransferError."""
    path = run / "rclone.sock"
    path.unlink(missing_ok=True)  # of a filer that was killed
    process = subprocess.Popen(
        ["rclone", "rcd", f"--rc-addr=unix://{path}", f"--config={config}", *_OPTIONS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # it may hold what the remote control says, credentials and all
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
    """By SIGTERM, or else by SIGKILL."""
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
