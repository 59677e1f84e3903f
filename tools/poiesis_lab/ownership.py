"""Which cluster and containers a checkout may use, when several checkouts share a machine.

The first checkout has the name `poiesis`, any other `poiesis-<hash of its path>`. Clusters, containers,
locks, kubeconfigs and state files follow it. docs/development/lab.md states the rules, `choose` decides.

A live process marks its name with a shared lock on a file, which the kernel releases when the process ends.
POIESIS_LAB pins a name; child processes inherit it.
"""

import fcntl
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from poiesis_lab import cache, docker, versions
from poiesis_lab.errors import LabError
from poiesis_lab.shell import report

DEFAULT = "poiesis"
PIN = "POIESIS_LAB"
LABEL = "poiesis.lab"  # on every container that the lab starts next to the cluster
KIND_LABEL = "io.x-k8s.kind.cluster"
CHECKOUT = cache.HERE.parents[1]

_OF_ANOTHER = re.compile(rf"{DEFAULT}-[0-9a-f]{{8}}(-|$)")
_VALID = re.compile(r"[a-z][a-z0-9-]{0,23}")
_LOCK = "owners"


@dataclass(frozen=True, kw_only=True)
class Owned:
    """A name and whether this checkout owns it: a borrowed cluster is never changed or removed."""

    name: str
    borrowed: bool = False

    def named(self, name: str) -> str:
        """Return this checkout's variant of `name`; the default name leaves it as it is."""
        if name == DEFAULT or name.startswith(f"{DEFAULT}-"):
            return self.name + name.removeprefix(DEFAULT)
        return f"{name}{self.suffix}"

    @property
    def suffix(self) -> str:
        """Return the suffix of its files: empty for the default name."""
        return self.name.removeprefix(DEFAULT) if self.name.startswith(DEFAULT) else f"-{self.name}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """The facts about a name: the input of `choose`."""

    owner: str | None = None  # the recorded path of a checkout
    owner_exists: bool = False
    in_use: bool = False  # by a live process of another checkout
    present: bool = False  # docker has containers of this name
    known: bool = False  # this cache has a record of its cluster
    same: bool = False  # its cluster runs and was created from files equal to those of this checkout


def choose(here: str, own_name: str, default: Found, own: Found) -> Owned:
    """Decide which name the checkout at `here` uses; no other checkout can have `own_name`."""
    mine = Owned(name=own_name)
    if own.owner == here:
        return mine
    if default.owner == here:
        return mine if default.in_use and not default.same else Owned(name=DEFAULT)
    if _is_free(default):
        return Owned(name=DEFAULT)
    if default.owner is not None and default.same and not default.in_use:
        return Owned(name=DEFAULT, borrowed=True)
    return mine


def _is_free(found: Found) -> bool:
    if found.in_use:
        return False
    if (
        found.owner is None
    ):  # `known`: created before owners were recorded; otherwise by another cache, or manually
        return found.known or not found.present
    return not found.owner_exists or not found.present


def name_of(checkout: Path, cache_directory: Path) -> str:
    """Return the name that belongs to one checkout with one cache."""
    return f"{DEFAULT}-{cache.hash_of([str(checkout), str(cache_directory)])[:8]}"


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container of the lab; `cluster` is kind's name for the cluster it is a node of, if it is one."""

    name: str
    cluster: str = ""
    running: bool = True


def of_name(containers: Iterable[Container], name: str) -> list[Container]:
    """Return the containers that belong to `name`: to the default, those of no other checkout."""

    def belongs(one: Container) -> bool:
        label = one.cluster or one.name
        if label != name and not label.startswith(f"{name}-"):
            return False
        return name != DEFAULT or _OF_ANOTHER.match(label) is None

    return [one for one in containers if belongs(one)]


def containers() -> list[Container]:
    """Return the lab's and kind's containers, stopped ones too."""
    form = f'{{{{.Names}}}}\t{{{{.Label "{LABEL}"}}}}\t{{{{.Label "{KIND_LABEL}"}}}}\t{{{{.State}}}}'
    lines = docker.docker("ps", "--all", "--format", form).splitlines()
    rows = [line.split("\t") for line in lines]
    return [
        Container(name=name, cluster=cluster, running=state == "running")
        for name, mark, cluster, state in rows
        if mark or cluster
    ]


# --- this process --------------------------------------------------------------------------------------

_now: list[Owned] = []  # the name that this process uses
_marked: list[int] = []  # the open file that shows it to others


def current() -> Owned:
    """Return the name of this process, chosen at the first call; only `take` makes it visible to others."""
    if not _now:
        with cache.lock(_LOCK):
            _now.append(_choice())
    return _now[0]


def take() -> Owned:
    """Return the name of this process and mark it as used; record this checkout as its owner."""
    if not _marked:
        with cache.lock(_LOCK):
            _use(current())
    return _now[0]


def own() -> Owned:
    """Return a name that is this checkout's: the current one unless that is borrowed."""
    owned = current()
    return Owned(name=name_of(CHECKOUT, cache.directory())) if owned.borrowed else owned


def take_own() -> Owned:
    """Return a name that is recorded as this checkout's: the current one unless that is borrowed."""
    take()
    with cache.lock(_LOCK):
        _record(own().name)
    return own()


def leave() -> Owned:
    """Stop using a borrowed name, and return this checkout's own."""
    mine = take_own()
    report(f"lab: not using the cluster of {owner(DEFAULT)}; using the name {mine.name}")
    _now.clear()
    while _marked:
        os.close(_marked.pop())
    with cache.lock(_LOCK):
        _use(mine)
    return mine


def _choice() -> Owned:
    pinned = os.environ.get(PIN)
    return _pinned(pinned) if pinned else _chosen()


def _pinned(name: str) -> Owned:
    if not _VALID.fullmatch(name):
        raise LabError(f"{PIN} must be 1 to 24 of a-z, 0-9 and -, starting with a letter, got {name!r}")
    recorded = owner(name)
    foreign = recorded is not None and recorded != str(CHECKOUT) and Path(recorded).exists()
    return Owned(name=name, borrowed=foreign)


def _chosen() -> Owned:
    own_name = name_of(CHECKOUT, cache.directory())
    there = containers() if docker.answers() else None
    owned = choose(str(CHECKOUT), own_name, _found(DEFAULT, there), _found(own_name, there))
    if owned.borrowed:
        report(f"lab: using the cluster {owned.name} of {owner(DEFAULT)}, which is idle")
    elif owned.name != DEFAULT and owner(own_name) is None:
        report(f"lab: {owner(DEFAULT) or 'something else'} owns the names {DEFAULT}-…; using {own_name}-…")
    return owned


def _found(name: str, there: Sequence[Container] | None) -> Found:
    """Return the facts about a name; `there`: None if no docker daemon responds."""
    recorded = owner(name)
    nodes = [one for one in there or () if one.cluster == _cluster_name(name)]
    state = cache.read_state(_state_name(name))
    return Found(
        owner=recorded,
        owner_exists=recorded is not None and Path(recorded).exists(),
        in_use=used_by_others(name),
        present=recorded is not None if there is None else bool(of_name(there, name)),
        known=bool(state),
        same=bool(nodes) and all(one.running for one in nodes) and state.get("lab") == cache.lab_key(),
    )


def _cluster_name(name: str) -> str:
    return versions.own_name(name, versions.RELEASE)


def _state_name(name: str) -> str:
    return f"cluster{versions.own_name(Owned(name=name).suffix, versions.RELEASE)}"


def _use(owned: Owned) -> None:
    """Mark the name as used by this process, and as this checkout's unless it is borrowed."""
    if not owned.borrowed:
        _record(owned.name)
    path = _marks(owned.name) / _mark()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)  # open for as long as this process lives
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    _now[:] = [owned]
    _marked.append(descriptor)
    os.environ[PIN] = owned.name


# --- records and marks ---------------------------------------------------------------------------------


def _marks(name: str) -> Path:
    return cache.directory() / "owners" / name


def _mark() -> str:
    return f"{cache.hash_of([str(CHECKOUT)])}.use"


def owner(name: str) -> str | None:
    """Return the path of the checkout that owns `name`, as recorded."""
    path = _marks(name) / "checkout"
    return path.read_text().strip() if path.exists() else None


def _record(name: str) -> None:
    with cache.aside(_marks(name) / "checkout") as path:
        path.write_text(f"{CHECKOUT}\n")


def used_by_others(name: str) -> bool:
    """Return whether a live process of another checkout uses `name`."""
    return any(_is_locked(path) for path in _marks(name).glob("*.use") if path.name != _mark())


def _is_locked(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def owned_names() -> list[str]:
    """Return the names that have an owner."""
    folders = sorted((cache.directory() / "owners").glob("*"))
    return [folder.name for folder in folders if owner(folder.name) is not None]


def names_of(checkout: Path = CHECKOUT) -> list[str]:
    """Return the names that a checkout owns."""
    return [name for name in owned_names() if owner(name) == str(checkout)]


def abandoned() -> list[str]:
    """Return the names whose checkout does not exist any more, unless a process still uses them."""
    return [
        name for name in owned_names() if not Path(owner(name) or "").exists() and not used_by_others(name)
    ]


def forget(name: str) -> None:
    """Remove the record of an owner; its live processes keep their marks."""
    with cache.lock(_LOCK):
        (_marks(name) / "checkout").unlink(missing_ok=True)
        for path in _marks(name).glob("*.use"):
            if not _is_locked(path):
                path.unlink()
        if _marks(name).is_dir() and not any(_marks(name).iterdir()):
            _marks(name).rmdir()
