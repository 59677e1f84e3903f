"""Remove old images in docker and on the nodes, old programs and old logs.

A tag is the hash of its image's sources, so every change creates a new image. The last images of each
checkout, those of any container, and the newest few of each name are kept.
"""

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from poiesis_lab import cache, daemon, docker, ownership
from poiesis_lab.shell import report

OURS = ("poiesis/", "poiesis-lab/")
NEWEST = 4  # images per name: node images of three Kubernetes releases, and one in development
LOGS = 20  # outputs of failed commands
_DAYS = 24 * 3600.0
_LOG_S = 7 * _DAYS
_PROGRAM_S = 30 * _DAYS  # since it was last used
_INTERRUPTED_S = _DAYS
_BUILD_CACHE = "8GB"


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """An image in docker."""

    reference: str
    created: float

    @property
    def name(self) -> str:
        return self.reference.rpartition(":")[0]


def surplus(images: Iterable[Tagged], used: Collection[str], newest: int = NEWEST) -> list[str]:
    """Return the references to remove: neither in `used` nor among the `newest` of their name."""
    by_name: dict[str, list[Tagged]] = {}
    for image in images:
        by_name.setdefault(image.name, []).append(image)
    return [
        image.reference
        for tagged in by_name.values()
        for image in sorted(tagged, key=lambda one: one.created, reverse=True)[newest:]
        if image.reference not in used
    ]


def surplus_on_node(present: Iterable[str], kept: Collection[str], mentioned: str) -> list[str]:
    """Return containerd's names of our images that docker does not keep either.

    `mentioned`: the cluster's objects as text. Images in it are kept: a release starts TaskPods with images
    that no Pod may run now.
    """
    found = ((name, name.removeprefix("docker.io/")) for name in present)
    return [
        name
        for name, reference in found
        if reference.startswith(OURS) and reference not in kept and reference not in mentioned
    ]


# --- records -------------------------------------------------------------------------------------------


def note(references: Mapping[str, str]) -> None:
    """Record the current images of this checkout, by purpose."""
    name = f"used-{cache.hash_of([str(ownership.CHECKOUT)])}"
    known = cache.read_state(name).get("references")
    before = known if isinstance(known, dict) else {}
    if (after := {**before, **references}) != before:
        cache.write_state(name, {"checkout": str(ownership.CHECKOUT), "references": after})


def noted() -> set[str]:
    """Return the recorded images of all checkouts; delete records of removed checkouts."""
    found: set[str] = set()
    for path in (cache.directory() / "state").glob("used-*.json"):
        record = cache.read_state(path.stem)
        references = record.get("references")
        if not Path(str(record.get("checkout"))).exists():
            path.unlink(missing_ok=True)
        elif isinstance(references, dict):
            found |= {str(reference) for reference in references.values()}
    return found


# --- actions -------------------------------------------------------------------------------------------


def everything() -> None:
    """Remove old images of docker, programs, logs, and leftovers of interrupted runs in the cache."""
    with cache.lock():
        _remove_images()
        now = time.time()
        folder = cache.directory()
        for path in [*_old_logs(now), *_unused_programs(now)]:
            path.unlink(missing_ok=True)
        if daemon.is_own():
            docker.succeeds_with("builder", "prune", "--force", f"--keep-storage={_BUILD_CACHE}")
        interrupted = [*folder.glob("tmp/*"), *folder.glob("bin/.*"), *folder.glob("maven/.*")]
        for path in older(interrupted, now - _INTERRUPTED_S):
            shutil.rmtree(path, ignore_errors=True)


def _remove_images() -> None:
    gone = surplus(tagged(), noted() | _of_containers())
    removed = [reference for reference in gone if _goes(reference)]
    if removed:
        report(f"lab: removed {len(removed)} old images")


def _goes(reference: str) -> bool:
    """Remove an image; return False if a new container uses it."""
    return docker.succeeds_with("image", "rm", reference)


def tagged() -> list[Tagged]:
    """Return our images in docker."""
    form = "{{.Repository}}:{{.Tag}}\t{{.CreatedAt}}"
    rows = [line.split("\t") for line in docker.docker("images", "--format", form).splitlines()]
    return [
        Tagged(reference=reference, created=created_at(created))
        for reference, created in rows
        if reference.startswith(OURS) and not reference.endswith(":<none>")
    ]


def created_at(text: str) -> float:
    """Return docker's `2026-11-28 18:55:20 +0000 UTC` as seconds since 1970."""
    return datetime.strptime(" ".join(text.split()[:3]), "%Y-%m-%d %H:%M:%S %z").timestamp()


def _of_containers() -> set[str]:
    return set(docker.docker("ps", "--all", "--format", "{{.Image}}").splitlines())


def nodes(names: Iterable[str], objects: Callable[[], str]) -> None:
    """Remove images from kind nodes that docker no longer has; `objects` is called only if there are any."""
    kept = {image.reference for image in tagged()}
    for node in names:
        ctr = ("exec", node, "ctr", "--namespace", "k8s.io")
        present = docker.docker(*ctr, "images", "ls", "-q").splitlines()
        if surplus_on_node(present, kept, ""):
            gone = surplus_on_node(present, kept, objects() + docker.docker(*ctr, "containers", "ls"))
            if gone:
                docker.docker(*ctr, "images", "rm", *gone)
                report(f"lab: removed {len(gone)} old images from {node}")


def _old_logs(now: float) -> list[Path]:
    folder = cache.directory() / "log"
    failed = sorted(folder.glob("failed-*.log"), key=_changed, reverse=True)
    others = [path for path in folder.glob("*.log") if path.name != "dockerd.log"]
    return [*failed[LOGS:], *older(others, now - _LOG_S)]


def _unused_programs(now: float) -> list[Path]:
    """Return programs that were not used for long (`binaries.py` updates their times), not the runtime."""
    return older(
        (
            path
            for path in (cache.directory() / "bin").glob("*-*")
            if path.is_file() and not path.name.startswith("runc-")
        ),
        now - _PROGRAM_S,
    )


def older(paths: Iterable[Path], than: float) -> list[Path]:
    """Return those of `paths` that were last changed before `than`."""
    return [path for path in paths if _changed(path) < than]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process removed it
        return float("inf")
