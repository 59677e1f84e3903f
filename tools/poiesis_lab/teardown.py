"""Remove what the lab made for this checkout: clusters, containers, state, and at last network and daemon.

What was built or downloaded stays in the cache.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from poiesis_lab import cache, daemon, docker, ownership, versions
from poiesis_lab.ownership import Owned
from poiesis_lab.shell import run, say, step

_NETWORK = "kind"
_KINDS = ("", "-nodes")  # of clusters, as their names end


def down() -> None:
    """Remove everything of this checkout, and of checkouts that do not exist any more.

    A borrowed cluster stays. The network and a docker daemon that the lab started go with the last container.
    """
    mine = {name for name in ownership.names_of() if not ownership.used_by_others(name)}
    owned = ownership.current()
    if owned.borrowed:
        say(f"lab: the cluster {owned.name} belongs to {ownership.owner(owned.name)} and stays")
    elif ownership.used_by_others(owned.name):
        say(f"lab: a process of another checkout uses {owned.name}, which stays; try again when it has ended")
    else:
        mine.add(owned.name)
    for name in sorted(mine | set(ownership.abandoned())):
        _remove(name)
    if docker.answers():
        _remove_network()
    else:
        say("lab: no docker daemon answers, so nothing of the lab runs")
    if not any(ownership.owned_names()):
        daemon.stop_own()
        _forget_all()


def remove_abandoned() -> None:
    """Remove what checkouts have left that do not exist any more."""
    for name in ownership.abandoned():
        say(f"lab: {ownership.owner(name)} does not exist any more; removing its {name}")
        _remove(name)


def _remove(name: str) -> None:
    owned = Owned(name=name)
    with ExitStack() as locks:
        for suffix in suffixes(owned):
            locks.enter_context(cache.lock(f"cluster{suffix}"))
        if docker.answers():
            there = [one.name for one in ownership.of_name(ownership.containers(), name)]
            if there:
                with step(f"remove {len(there)} containers of {name}"):
                    docker.remove(*there)
        for suffix in suffixes(owned):
            cache.forget_state(f"cluster{suffix}")
            for path in (f"kubeconfig{suffix}", f"kind{suffix}.yaml"):
                (cache.directory() / path).unlink(missing_ok=True)
            shutil.rmtree(cache.directory() / f"e2e{suffix}", ignore_errors=True)
            cache.remove_lock(f"cluster{suffix}")
        ownership.forget(name)
    for kind in ("backends", "kueue"):
        with cache.lock(f"{kind}{owned.suffix}"):
            cache.remove_lock(f"{kind}{owned.suffix}")


def suffixes(owned: Owned) -> Iterator[str]:
    """Yield what the files about the clusters of a name end with: one node and two, of every Kubernetes."""
    for release in versions.RELEASES.values():
        for kind in _KINDS:
            yield versions.own_name(f"{owned.suffix}{kind}", release)


def _remove_network() -> None:
    """Remove kind's network unless a container needs it, running or stopped; kind makes a new one."""
    if not docker.has_network(_NETWORK):
        return
    if docker.docker("ps", "--all", "--quiet", "--filter", f"network={_NETWORK}"):
        say(f"lab: docker network {_NETWORK} stays: other containers use it")
    else:
        docker.docker("network", "rm", _NETWORK)


def _forget_all() -> None:
    """Remove what only a running lab needs."""
    for name in ("state", "tmp", "log", "owners", ".pytest-kind", *_tools()):
        _unmount_below(cache.directory() / name)
        shutil.rmtree(cache.directory() / name, ignore_errors=True)


def _tools() -> list[str]:
    return [versions.own_name("tools", release) for release in versions.RELEASES.values()]


def _unmount_below(folder: Path) -> None:
    """Unmount what a killed build of a root file system has left."""
    if os.geteuid() != 0:
        return
    for point in mounts_below(Path("/proc/self/mountinfo").read_text(), folder):
        run(["umount", "--lazy", point])


def mounts_below(mountinfo: str, folder: Path) -> list[str]:
    """Return the mount points below `folder`, innermost first; `mountinfo` is of /proc/<pid> (proc(5))."""
    points = [line.split()[4].replace("\\040", " ") for line in mountinfo.splitlines()]
    return sorted((point for point in points if Path(point).is_relative_to(folder)), key=len, reverse=True)
