"""The lab's cache: its directory, the names of its entries, and its locks.

A name contains the hash of all sources of the entry, so an existing entry is complete and current: each is
written to a temporary path and renamed when complete.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache as once
from pathlib import Path

from poiesis_lab.errors import LabError

HERE = Path(__file__).parent
RECIPES = HERE / "recipes"

_LEFT_OUT = frozenset({"__pycache__", ".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache"})

_held = threading.local()


def directory() -> Path:
    """Return the cache directory: POIESIS_CACHE, else ~/.cache/poiesis. Created on first use."""
    configured = os.environ.get("POIESIS_CACHE")
    path = Path(configured) if configured else Path.home() / ".cache" / "poiesis"
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def files_under(root: Path) -> list[Path]:
    """Return every file below `root` (or `root` itself), sorted, without caches and version control."""
    if root.is_file():
        return [root]
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.endswith(".egg-info")]
        found += [Path(folder, name) for name in names if not name.endswith(".pyc")]
    return sorted(found)


def hash_of(
    values: Mapping[str, object] | Sequence[object], files: Sequence[Path] = (), root: Path = HERE
) -> str:
    """Return twelve hex digits that depend on `values` (JSON) and on names, modes and contents of `files`."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for path in sorted(files):
        name = path.relative_to(root) if path.is_relative_to(root) else path.name
        executable = os.access(path, os.X_OK)
        digest.update(f"\0{name}\0{executable}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


@once
def lab_key() -> str:
    """Return a hash of the lab's own files; it validates records of earlier runs."""
    return hash_of([platform.machine()], files_under(HERE))


@contextmanager
def aside(target: Path) -> Iterator[Path]:
    """Yield a temporary path next to `target`; rename it to `target` if the block succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder / target.name
        (folder / target.name).replace(target)
    finally:
        shutil.rmtree(folder)


@contextmanager
def workspace() -> Iterator[Path]:
    """Yield a scratch directory in the cache (on the same, large file system)."""
    parent = directory() / "tmp"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as name:
        yield Path(name)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock on the file at `path`, not on one that `remove_lock` removed during the wait."""
    while True:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(path, file.fileno()):
                yield
                return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def remove_lock(name: str) -> None:
    """Remove the file of a lock that this thread holds; a waiting process creates a new file."""
    (directory() / f"{name}.lock").unlink(missing_ok=True)


@contextmanager
def lock(name: str = "lab") -> Iterator[None]:
    """Hold a lock between processes; the same thread may enter again."""
    depths = _depths()
    if depths.get(name, 0):
        depths[name] += 1
        try:
            yield
        finally:
            depths[name] -= 1
        return
    with _locked(directory() / f"{name}.lock"):
        depths[name] = 1
        try:
            yield
        finally:
            depths[name] = 0


def held() -> frozenset[str]:
    """Return the names of the locks that this thread holds."""
    return frozenset(name for name, depth in _depths().items() if depth)


@contextmanager
def holding(names: frozenset[str]) -> Iterator[None]:
    """Let this thread use the locks `names` of a thread that waits for it."""
    depths = _depths()
    for name in names:
        depths[name] = depths.get(name, 0) + 1
    try:
        yield
    finally:
        for name in names:
            depths[name] -= 1


def _depths() -> dict[str, int]:
    depths: dict[str, int] = _held.__dict__.setdefault("depths", {})
    return depths


def read_state(name: str) -> dict[str, object]:
    """Return the record of an earlier run under `name`; empty if none exists."""
    path = directory() / "state" / f"{name}.json"
    if not path.exists():
        return {}
    state = json.loads(path.read_text())
    if not isinstance(state, dict):
        raise LabError(f"{path} is not a JSON object; delete it and try again")
    return state


def write_state(name: str, state: Mapping[str, object]) -> None:
    with aside(directory() / "state" / f"{name}.json") as path:
        path.write_text(json.dumps(state, indent=2, sort_keys=True) + "\n")


def forget_state(name: str) -> None:
    (directory() / "state" / f"{name}.json").unlink(missing_ok=True)
