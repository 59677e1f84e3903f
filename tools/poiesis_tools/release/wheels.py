"""Unpack the packages of a lock into a folder, for a given Python; their code does not run."""

import sys
from pathlib import Path

from poiesis_lab.shell import run
from poiesis_tools.workspace import ROOT


def unpack(target: Path, python: str, *what: str | Path) -> None:
    """Install wheels without dependencies. `what`: files, or options of `uv pip install`."""
    command: list[str | Path] = [
        *(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"),
        *("--target", target, "--python-version", python, "--link-mode", "copy", *what),
    ]
    run(command, cwd=ROOT)


def unpack_lock(target: Path, python: str, lock: Path) -> None:
    """Install the packages of a lock, whose hashes are checked."""
    unpack(target, python, "--require-hashes", "--requirement", lock)
