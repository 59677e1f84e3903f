"""A release in a real image registry: the digests there are those that were built."""

import json
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from poiesis_lab import backends, binaries, daemon, versions
from poiesis_lab.backends import HttpServer
from poiesis_lab.errors import LabError
from poiesis_tools.release import chart, command, facts, oci, publish
from poiesis_tools.release.facts import Facts
from poiesis_tools.release.images import Built

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def registry() -> Iterator[HttpServer]:
    daemon.ensure()
    yield backends.start_registry("poiesis-registry-of-tools")
    backends.remove("poiesis-registry-of-tools")


@pytest.fixture
def release(registry: HttpServer) -> Facts:
    return Facts(
        version="9.8.7",
        revision="f" * 40,
        epoch=1_700_000_000,
        registry=f"{registry.host}:{registry.port}/bio",
    )


def _image(folder: Path) -> str:
    """Write an index of one small image, and return its digest."""
    layout = oci.Layout(folder)
    config = layout.blob(b'{"architecture":"amd64","os":"linux"}', oci.CONFIG)
    manifest = layout.manifest(config, [layout.blob(b"layer", oci.LAYER)], {})
    return layout.finish(layout.index([manifest], {}), "9.8.7")


def _write(folder: Path, release: Facts) -> dict[str, str]:
    image = _image(folder / "oci/poiesis-api")
    archive = chart.package(release, {"api": Built(digest=image, platforms=("linux/amd64",))}, [])
    of_chart = chart.layout(folder / "oci/charts/poiesis", archive, release, chart.metadata_of(archive))
    (folder / "poiesis-9.8.7.tgz").write_bytes(archive)
    digests = {"poiesis-api": image, "charts/poiesis": of_chart}
    document = {"registry": release.registry, "version": release.version, "artifacts": digests}
    (folder / "digests.json").write_text(json.dumps(document))
    return digests


def test_helm_pulls_the_chart_that_was_built(release: Facts, tmp_path: Path):
    digests = _write(tmp_path, release)
    (tmp_path / "pulled").mkdir()

    publish.publish(tmp_path)

    pulled = subprocess.run(
        [
            *(binaries.helm(), "pull", f"oci://{release.registry}/charts/poiesis", "--version", "9.8.7"),
            *("--plain-http", "--destination", tmp_path / "pulled"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert digests["charts/poiesis"] in pulled.stdout + pulled.stderr
    (archive,) = (tmp_path / "pulled").iterdir()
    assert archive.read_bytes() == (tmp_path / "poiesis-9.8.7.tgz").read_bytes()
    rendered = subprocess.run(
        [binaries.helm(), "template", "poiesis", archive, "--kube-version", versions.KUBERNETES],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{release.registry}/poiesis-api:9.8.7@{digests['poiesis-api']}" in rendered.stdout


def test_another_digest_in_the_registry_is_an_error(release: Facts, tmp_path: Path):
    _write(tmp_path, release)
    path = tmp_path / "digests.json"
    manifest = json.loads(path.read_text())
    manifest["artifacts"]["poiesis-api"] = f"sha256:{'0' * 64}"
    path.write_text(json.dumps(manifest))

    with pytest.raises(LabError, match=r"poiesis-api:9\.8\.7 must have the digest sha256:000"):
        publish.publish(tmp_path)


def test_zipapp_is_reproducible_and_runs(release: Facts, tmp_path: Path):
    of_now = Facts(version=facts.version(), revision="", epoch=release.epoch, registry="")
    wheel = command.wheel(tmp_path, of_now)
    first, second = (command.zipapp(wheel, of_now) for _ in range(2))
    assert first == second

    program = tmp_path / "poiesis.pyz"
    program.write_bytes(first)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    done = subprocess.run(
        ["/usr/bin/env", "-i", "python3", "-I", program, "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert facts.version() in done.stdout
