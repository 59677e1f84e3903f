"""Checkouts use their own or an idle equal cluster, and `down` keeps those of others."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from poiesis_lab import cache, cluster, docker, ownership, teardown
from poiesis_lab.errors import LabError
from poiesis_lab.ownership import Container, Found, Owned, choose

HERE, OTHER, OWN = "/here", "/other", "poiesis-0a1b2c3d"
MINE = Found(owner=HERE, owner_exists=True, present=True, known=True, same=True)
THEIRS = Found(owner=OTHER, owner_exists=True, present=True, known=True, same=True)


def changed(found: Found, **fields: object) -> Found:
    return Found(**{**vars(found), **fields})


@pytest.mark.parametrize(
    ("default", "own", "name", "borrowed"),
    [
        pytest.param(Found(), Found(), "poiesis", False, id="nothing there"),
        pytest.param(MINE, Found(), "poiesis", False, id="own cluster"),
        pytest.param(changed(MINE, same=False), Found(), "poiesis", False, id="own, recipes changed"),
        pytest.param(changed(MINE, in_use=True), Found(), "poiesis", False, id="own, lent, recipes the same"),
        pytest.param(
            changed(MINE, in_use=True, same=False), Found(), OWN, False, id="own, lent, recipes changed"
        ),
        pytest.param(THEIRS, Found(), "poiesis", True, id="idle, recipes the same"),
        pytest.param(changed(THEIRS, in_use=True), Found(), OWN, False, id="in use"),
        pytest.param(changed(THEIRS, same=False), Found(), OWN, False, id="idle, other recipes or stopped"),
        pytest.param(THEIRS, MINE, OWN, False, id="has a cluster of its own already"),
        pytest.param(
            changed(THEIRS, present=False, same=False), Found(), "poiesis", False, id="nothing left"
        ),
        pytest.param(changed(THEIRS, owner_exists=False), Found(), "poiesis", False, id="owner removed"),
        pytest.param(
            changed(THEIRS, owner_exists=False, in_use=True), Found(), OWN, False, id="owner removed, in use"
        ),
        pytest.param(
            Found(present=True, known=True), Found(), "poiesis", False, id="from before owners were recorded"
        ),
        pytest.param(Found(present=True), Found(), OWN, False, id="made by hand or with another cache"),
    ],
)
def test_checkout_gets_a_name(default: Found, own: Found, name: str, borrowed: bool) -> None:
    assert choose(HERE, OWN, default, own) == Owned(name=name, borrowed=borrowed)


@pytest.mark.parametrize(
    ("owner", "name", "expected"),
    [
        ("poiesis", "poiesis-minio", "poiesis-minio"),
        ("poiesis", "other", "other"),
        (OWN, "poiesis", OWN),
        (OWN, "poiesis-minio", f"{OWN}-minio"),
        (OWN, "other", "other-0a1b2c3d"),
        ("mine", "poiesis-minio", "mine-minio"),
    ],
)
def test_names_follow_the_owner(owner: str, name: str, expected: str) -> None:
    assert Owned(name=owner).named(name) == expected


def test_containers_belong_to_one_checkout() -> None:
    there = [
        Container(name="poiesis-control-plane", cluster="poiesis"),
        Container(name="poiesis-nodes-1-29-worker", cluster="poiesis-nodes-1-29"),
        Container(name="poiesis-minio"),
        Container(name=f"{OWN}-minio"),
        Container(name=f"{OWN}-nodes-worker", cluster=f"{OWN}-nodes"),
        Container(name="kind-control-plane", cluster="kind"),
    ]
    assert ownership.of_name(there, "poiesis") == there[:3]
    assert ownership.of_name(there, OWN) == there[3:5]


def test_checkout_name_depends_on_path_and_cache() -> None:
    names = {
        ownership.name_of(Path(path), Path(kept)) for path in (HERE, OTHER) for kept in ("/cache", "/cold")
    }
    assert len(names) == 4
    assert all(len(name) == len(OWN) for name in names)


Machine = Callable[..., Owned]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Return a machine on which new processes of checkouts choose names; `there`: containers in docker."""
    monkeypatch.setenv("POIESIS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(docker, "answers", lambda: True)

    def process(checkout: str, *there: Container, pin: str | None = None) -> Owned:
        path = tmp_path / checkout
        path.mkdir(exist_ok=True)
        _close()
        monkeypatch.setattr(ownership, "_now", [])
        monkeypatch.setattr(ownership, "_marked", [])
        monkeypatch.setattr(ownership, "CHECKOUT", path)
        monkeypatch.setattr(ownership, "containers", lambda: list(there))
        monkeypatch.delenv(ownership.PIN, raising=False)
        if pin is not None:
            monkeypatch.setenv(ownership.PIN, pin)
        return ownership.take()

    yield process
    _close()


def _close() -> None:
    while ownership._marked:
        os.close(ownership._marked.pop())


NODE = Container(name="poiesis-control-plane", cluster="poiesis")


def test_checkout_with_other_recipes_gets_own_names(machine: Machine) -> None:
    assert machine("first").name == "poiesis"
    cache.write_state("cluster", {"image": "node:1", "lab": "other files"})
    second = machine("second", NODE)
    assert second.name != "poiesis"
    assert not second.borrowed
    assert machine("first", NODE).name == "poiesis"
    assert machine("second", NODE) == second


def test_second_checkout_borrows_idle_cluster_from_equal_files(machine: Machine) -> None:
    machine("first")
    cache.write_state("cluster", {"lab": cache.lab_key()})
    assert machine("second", NODE) == Owned(name="poiesis", borrowed=True)
    stopped = Container(name=NODE.name, cluster=NODE.cluster, running=False)
    assert machine("third", stopped).name != "poiesis"


def test_two_node_cluster_is_never_borrowed(machine: Machine) -> None:
    machine("first")
    cache.write_state("cluster", {"lab": cache.lab_key()})
    borrowed = machine("second", NODE)
    assert cluster.ONE_NODE.name == borrowed.name
    assert cluster.TWO_NODES.name == f"{ownership.own().name}-nodes" != "poiesis-nodes"


def test_borrower_of_a_broken_cluster_leaves_it(machine: Machine) -> None:
    machine("first")
    cache.write_state("cluster", {"lab": cache.lab_key()})
    assert machine("second", NODE).borrowed
    own = ownership.leave()
    assert ownership.current() == own == machine("second", NODE)
    assert own.name != "poiesis"


HOLDER = """
import sys
from pathlib import Path
from poiesis_lab import docker, ownership
docker.answers = lambda: True
ownership.containers = list
ownership.CHECKOUT = Path(sys.argv[1])
print(ownership.take().name, flush=True)
sys.stdin.read()
"""


def test_live_process_keeps_its_cluster_for_itself(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "first")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "poiesis\n"
        cache.write_state("cluster", {"lab": cache.lab_key()})
        assert ownership.used_by_others("poiesis")
        assert not machine("second", NODE).borrowed
        holder.kill()
        holder.wait()
    assert not ownership.used_by_others("poiesis")
    assert machine("third", NODE).borrowed


def test_processes_that_a_process_starts_use_its_name(machine: Machine) -> None:
    own = machine("first", pin="poiesis-mine")
    assert own == Owned(name="poiesis-mine")
    assert machine("second", pin="poiesis-mine").borrowed
    with pytest.raises(LabError, match="POIESIS_LAB must be 1 to 24"):
        machine("first", pin="Mine/")


def test_names_of_removed_checkouts_are_released(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("first")
    removed: list[str] = []
    monkeypatch.setattr(docker, "remove", lambda *names: removed.extend(names))
    cache.write_state("cluster", {"lab": "old"})
    machine("second", NODE, Container(name="poiesis-minio"))
    (tmp_path / "first").rmdir()
    assert ownership.abandoned() == ["poiesis"]
    teardown.remove_abandoned()
    assert removed == ["poiesis-control-plane", "poiesis-minio"]
    assert cache.read_state("cluster") == {}
    assert ownership.abandoned() == []
    assert not (cache.directory() / "owners/poiesis").exists()
    assert {path.name for path in cache.directory().glob("*.lock")} == {"owners.lock"}


MOUNTS = """\
23 28 0:22 / /proc rw - proc proc rw
40 28 0:35 / /cache/tmp/a\\040b/proc rw - proc proc rw
41 28 0:35 / /cache/tmp/a\\040b/proc/sys rw - proc proc rw
42 28 0:35 / /cache/tmpfs rw - tmpfs tmpfs rw
"""


def test_leftover_mounts_are_listed_innermost_first() -> None:
    assert teardown.mounts_below(MOUNTS, Path("/cache/tmp")) == [
        "/cache/tmp/a b/proc/sys",
        "/cache/tmp/a b/proc",
    ]
