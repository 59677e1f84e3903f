"""Programs of users that a story runs: the `poiesis` command, and how any of them ends."""

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
"""Exit code, standard output, standard error (empty if it is not a pipe of its own)."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """The `poiesis` command, of somebody with a home and an environment of their own.

    `environment`: what is beside PATH, for instance POIESIS_SERVER.
    """

    home: Path
    environment: Mapping[str, str]

    async def start(self, *arguments: str) -> Process:
        """Its standard output and error are pipes."""
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_CLI), "HOME": str(self.home)}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "poiesis_cli", *arguments),
            env={**base, **self.environment},
            stdout=PIPE,
            stderr=PIPE,
        )

    async def run(self, *arguments: str) -> Outcome:
        """Until it ends."""
        return await ended(await self.start(*arguments))


async def ended(process: Process, seconds: float = _SECONDS) -> Outcome:
    """What is left of its output when it ends; it is killed if it has not by then."""
    try:
        out, err = await asyncio.wait_for(process.communicate(), seconds)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()  # wait() would leave its pipes open behind it
    return process.returncode, out.decode(), (err or b"").decode()
