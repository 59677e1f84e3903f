"""Old images, programs and logs are removed."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from poiesis_lab import cache, daemon, docker, ownership, prune
from poiesis_lab.prune import Tagged


def tags(name: str, *created: int) -> list[Tagged]:
    return [Tagged(reference=f"poiesis/{name}:{at}", created=at) for at in created]


def test_newest_and_used_images_are_kept() -> None:
    images = [*tags("api", 3, 1, 5, 2, 4), *tags("tif", 1)]
    assert prune.surplus(images, {"poiesis/api:2"}, newest=2) == ["poiesis/api:3", "poiesis/api:1"]
    assert prune.surplus(images, set(), newest=5) == []


def test_node_keeps_images_of_docker_and_cluster() -> None:
    present = [
        "docker.io/poiesis/api:1",
        "docker.io/poiesis/api:2",
        "docker.io/poiesis/tif:1",
        "docker.io/poiesis-lab/busybox:1",
        "docker.io/library/poiesis:1",
        "registry.k8s.io/pause:3.10.1",
        "sha256:0a1b",
    ]
    gone = prune.surplus_on_node(present, {"poiesis/api:2"}, '{"image": "poiesis/tif:1"}')
    assert gone == ["docker.io/poiesis/api:1", "docker.io/poiesis-lab/busybox:1"]


def test_time_of_docker_is_read() -> None:
    assert prune.created_at("1970-01-02 01:00:00 +0100 CET") == 24 * 3600


def test_images_of_removed_checkouts_are_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POIESIS_CACHE", str(tmp_path / "cache"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(ownership, "CHECKOUT", tmp_path / name)
        prune.note({"api": f"poiesis/api:{name}", "tif": "poiesis/tif:1"})
    prune.note({"api": "poiesis/api:three"})
    assert prune.noted() == {"poiesis/api:one", "poiesis/api:three", "poiesis/tif:1"}
    (tmp_path / "two").rmdir()
    assert prune.noted() == {"poiesis/api:one", "poiesis/tif:1"}
    assert len(list((cache.directory() / "state").iterdir())) == 1


@pytest.fixture
def aged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], Path]:
    """Return a function that creates an old file or folder (age in days) in the cache, without images."""
    monkeypatch.setenv("POIESIS_CACHE", str(tmp_path))
    monkeypatch.setattr(docker, "docker", lambda *_, **__: "")
    monkeypatch.setattr(daemon, "is_own", lambda: False)

    def make(name: str, days: float) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_text("")
        at = path.stat().st_mtime - days * 24 * 3600
        os.utime(path, (at, at))
        return path

    return make


def test_old_files_of_the_cache_go(aged: Callable[[str, float], Path]) -> None:
    stay = [
        aged("log/failed-2.log", 1),
        aged("log/dockerd.log", 99),
        aged("bin/helm-0a1b", 29),
        aged("bin/runc-within-bounds-0a1b", 99),
        aged("tmp/now/", 0),
        aged("demo/data", 99),
    ]
    go = [
        aged("log/failed-1.log", 8),
        aged("log/mutants-1.log", 8),
        aged("bin/helm-2c3d", 31),
        aged("tmp/killed/", 2),
        aged("bin/.etcd-0a1b.x/", 2),
    ]
    prune.everything()
    assert [path for path in stay if not path.exists()] == []
    assert [path for path in go if path.exists()] == []


def test_outputs_of_failed_commands_are_limited_in_number(aged: Callable[[str, float], Path]) -> None:
    paths = [aged(f"log/failed-{number}.log", number / 100) for number in range(prune.LOGS + 3)]
    prune.everything()
    assert [path.exists() for path in paths] == [True] * prune.LOGS + [False] * 3
