"""Run programs of users: the `poiesis` command, and any process until it ends."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_CLI = Path(__file__).resolve().parents[2] / "cli"
_SECONDS = 180

Outcome = tuple[int | None, str, str]
"""Exit code, standard output, standard error (empty unless it is a separate pipe)."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """The `poiesis` command, with its own home directory and environment.

    `environment`: variables in addition to PATH, for instance POIESIS_SERVER.
    """

    home: Path
    environment: Mapping[str, str]

    async def start(self, *arguments: str) -> Process:
        """Start the command; its standard output and error are pipes."""
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_CLI), "HOME": str(self.home)}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "poiesis_cli", *arguments),
            env={**base, **self.environment},
            stdout=PIPE,
            stderr=PIPE,
        )

    async def run(self, *arguments: str) -> Outcome:
        """Run the command until it ends."""
        return await ended(await self.start(*arguments))


async def ended(process: Process, seconds: float = _SECONDS) -> Outcome:
    """Return the unread output of a process when it ends; kill it after `seconds`."""
    try:
        out, err = await asyncio.wait_for(process.communicate(), seconds)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()  # wait() would leave its pipes open
    return process.returncode, out.decode(), (err or b"").decode()
