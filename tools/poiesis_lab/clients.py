"""TES clients that people run, each in an environment of its own: what they need is old, and disagrees.

`e2e/clients/<name>.lock` pins everything. An environment is made once and kept in the cache under its hash.
"""

import sys
from pathlib import Path

from poiesis_lab import cache
from poiesis_lab.shell import run, step

LOCKS = cache.HERE.parents[1] / "e2e/clients"
# Their setup.py wants the setuptools that is in the environment, not the newest.
_OLD = ("bagit", "rdflib", "rdflib-jsonld", "ruamel-yaml")


def environment(name: str) -> Path:
    """The `bin` of a client's environment."""
    lock = LOCKS / f"{name}.lock"
    folder = cache.directory() / "clients" / f"{name}-{cache.hash_of([sys.version], [lock])}"
    done = folder / "done"
    if not done.exists():
        with step(f"install {name}"):
            _make(folder, lock)
            done.touch()
    return folder / "bin"


def _make(folder: Path, lock: Path) -> None:
    uv = [sys.executable, "-m", "uv"]
    run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder])
    install: list[str | Path] = [
        *uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        folder / "bin/python",
        "--no-deps",
    ]
    pins = [line for line in lock.read_text().splitlines() if line.startswith(("setuptools==", "wheel=="))]
    for pin in pins:
        run([*install, pin.removesuffix(" \\")])
    isolated = [f"--no-build-isolation-package={name}" for name in _OLD]
    run([*install, *isolated, "--require-hashes", "-r", lock], timeout=600)
