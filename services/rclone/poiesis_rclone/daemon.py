"""rclone as a child process that is asked by its remote control, over a Unix socket.

One process for the whole work list: it keeps connections and knows what it lists, and a new one for each file
would cost more than most files.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from poiesis_rclone.answers import failure
from poiesis_transfer.errors import Passing

_START_SECONDS = 60
_TICK_SECONDS = 0.02
_END_SECONDS = 10
_OK = 200
_MEMORY = "384MiB"  # of the 512 that the chart gives a filer
_OPTIONS = (
    "--rc-no-auth",
    "--ignore-times",  # a file that is there may be another one of the same size
    "--low-level-retries=4",
    "--contimeout=15s",
    "--timeout=60s",
    "--buffer-size=4M",
    "--log-level=ERROR",
)


class Rclone:
    """Calls of rclone's remote control; `secrets` are kept out of what is said about failures."""

    def __init__(self, session: aiohttp.ClientSession, secrets: Sequence[str]) -> None:
        self._session = session
        self._secrets = secrets

    async def call(self, command: str, what: str, **parameters: Any) -> dict[str, Any]:
        """rclone's answer; raise TransferError, in which `what` says what was tried."""
        try:
            async with self._session.post(f"http://rclone/{command}", json=parameters) as response:
                answer: dict[str, Any] = await response.json()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Passing(f"{what}: rclone ended meanwhile") from error
        if response.status != _OK:
            raise failure(what, str(answer.get("error", "")), response.status, self._secrets)
        return answer


@asynccontextmanager
async def running(
    config: Path, run: Path, secrets: Sequence[str], env: Mapping[str, str]
) -> AsyncIterator[Rclone]:
    """rclone with the remotes of `config`, from when it answers until the end; raise Passing."""
    socket = run / "rclone.sock"
    socket.unlink(missing_ok=True)  # of a filer that was killed
    process = await asyncio.create_subprocess_exec(
        *("rclone", "rcd", f"--rc-addr=unix://{socket}", f"--config={config}", *_OPTIONS),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,  # it may hold what the remote control says, credentials and all
        env={"GOMEMLIMIT": _MEMORY, "HOME": str(run), **env},
    )
    try:
        await _answers(process, socket)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_END_SECONDS)
        connector = aiohttp.UnixConnector(path=str(socket), limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield Rclone(session, secrets)
    finally:
        await _ended(process)
        socket.unlink(missing_ok=True)


async def _answers(process: asyncio.subprocess.Process, socket: Path) -> None:
    ended = asyncio.create_task(process.wait(), name="rclone")
    try:
        async with asyncio.timeout(_START_SECONDS):
            while not await _listens(socket):
                done, _ = await asyncio.wait([ended], timeout=_TICK_SECONDS)
                if done:
                    raise Passing(f"rclone cannot start: it ended with {process.returncode}")
    except TimeoutError as error:
        raise Passing(f"rclone does not answer within {_START_SECONDS} s") from error
    finally:
        ended.cancel()


async def _listens(socket: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    writer.close()
    return True


async def _ended(process: asyncio.subprocess.Process) -> None:
    """By SIGTERM, or else by SIGKILL."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
