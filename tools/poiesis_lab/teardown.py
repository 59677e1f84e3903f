"""Remove this checkout's clusters, containers and state, and finally network and daemon.

Builds and downloads stay in the cache.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from poiesis_lab import cache, daemon, docker, ownership, versions
from poiesis_lab.ownership import Owned
from poiesis_lab.shell import report, run, step

_NETWORK = "kind"
_KINDS = ("", "-nodes", "-scale")  # suffixes of cluster names


def down() -> None:
    """Remove everything of this checkout, and of checkouts that do not exist any more.

    A borrowed cluster stays. The network and the lab's docker daemon are removed with the last container.
    """
    mine = {name for name in ownership.names_of() if not ownership.used_by_others(name)}
    owned = ownership.current()
    if owned.borrowed:
        report(f"lab: keeping the cluster {owned.name}: it belongs to {ownership.owner(owned.name)}")
    elif ownership.used_by_others(owned.name):
        report(f"lab: keeping {owned.name}: a process of another checkout uses it; retry later")
    else:
        mine.add(owned.name)
    for name in sorted(mine | set(ownership.abandoned())):
        _remove(name)
    if docker.answers():
        _remove_network()
    else:
        report("lab: no docker daemon responds, so nothing of the lab runs")
    if not any(ownership.owned_names()):
        daemon.stop_own()
        _forget_all()


def remove_abandoned() -> None:
    """Remove leftovers of checkouts that no longer exist."""
    for name in ownership.abandoned():
        report(f"lab: {ownership.owner(name)} no longer exists; removing its {name}")
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
    """Yield the suffixes of the files of a name's clusters: one node and two, of every Kubernetes release."""
    for release in versions.RELEASES.values():
        for kind in _KINDS:
            yield versions.own_name(f"{owned.suffix}{kind}", release)


def _remove_network() -> None:
    """Remove kind's network unless a container, running or stopped, uses it; kind creates a new one."""
    if not docker.has_network(_NETWORK):
        return
    if docker.docker("ps", "--all", "--quiet", "--filter", f"network={_NETWORK}"):
        report(f"lab: keeping the docker network {_NETWORK}: other containers use it")
    else:
        docker.docker("network", "rm", _NETWORK)


def _forget_all() -> None:
    """Remove the records of a running lab."""
    for name in ("state", "tmp", "log", "owners", ".pytest-kind", *_tools()):
        _unmount_below(cache.directory() / name)
        shutil.rmtree(cache.directory() / name, ignore_errors=True)


def _tools() -> list[str]:
    return [versions.own_name("tools", release) for release in versions.RELEASES.values()]


def _unmount_below(folder: Path) -> None:
    """Unmount leftovers of a killed build of a root file system."""
    if os.geteuid() != 0:
        return
    for point in mounts_below(Path("/proc/self/mountinfo").read_text(), folder):
        run(["umount", "--lazy", point])


def mounts_below(mountinfo: str, folder: Path) -> list[str]:
    """Return the mount points below `folder`, innermost first; `mountinfo` is of /proc/<pid> (proc(5))."""
    points = [line.split()[4].replace("\\040", " ") for line in mountinfo.splitlines()]
    return sorted((point for point in points if Path(point).is_relative_to(folder)), key=len, reverse=True)
