"""TES clients in separate environments: their dependencies are old and conflict.

`e2e/clients/<name>.lock` pins everything. Where a client needs packages that only old tools can build,
`<name>.build.lock` pins those tools: they are installed first, and builds use nothing else.
An environment is created once and kept in the cache under its hash.
"""

import sys
from pathlib import Path

from poiesis_lab import cache
from poiesis_lab.shell import run, step

LOCKS = cache.HERE.parents[1] / "e2e/clients"


def environment(name: str) -> Path:
    """Return the `bin` directory of a client's environment."""
    locks = _locks(name)
    folder = cache.directory() / "clients" / f"{name}-{cache.hash_of([sys.version, *_OPTIONS], locks)}"
    done = folder / "done"
    if not done.exists():
        with step(f"install {name}"):
            _make(folder, locks)
            done.touch()
    return folder / "bin"


_OPTIONS = ("--quiet", "--no-deps", "--require-hashes")


def _locks(name: str) -> list[Path]:
    """Return the lock files in the order of their installation."""
    build, lock = LOCKS / f"{name}.build.lock", LOCKS / f"{name}.lock"
    return [build, lock] if build.exists() else [lock]


def _make(folder: Path, locks: list[Path]) -> None:
    uv = [sys.executable, "-m", "uv"]
    run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder])
    isolation = ["--no-build-isolation"] if len(locks) > 1 else []
    for lock in locks:
        python = folder / "bin/python"
        run([*uv, "pip", "install", *_OPTIONS, *isolation, "--python", python, "-r", lock], timeout=600)
