"""The parts of a release: their content, and the same bytes from the same commit."""

import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from cyclonedx.model.component import ComponentType

from poiesis_lab.errors import LabError
from poiesis_tools.release import (
    archives,
    audit,
    changelog,
    chart,
    command,
    facts,
    images,
    licenses,
    oci,
    publish,
    sbom,
)
from poiesis_tools.release.__main__ import checksums
from poiesis_tools.release.facts import Facts
from poiesis_tools.release.images import Built
from poiesis_tools.workspace import ROOT

FACTS = Facts(version="9.8.7", revision="f" * 40, epoch=1_700_000_000, registry="registry.example.org/bio")
OTHER_DAY = 1_600_000_000
CHANGELOG = """\
# Changelog

## [Unreleased]

### Added

- Something later.

## [9.8.7] - 2026-11-29

A summary.

### Added

- A [page](docs/page.md) and [TES](https://example.org/tes).

### Fixed

**Tasks**

- A bug.

## [9.8.6]

### Added

- Something earlier.
"""
DIGEST = f"sha256:{'a' * 64}"
IMAGES = {name: Built(digest=DIGEST, platforms=("linux/amd64", "linux/arm64")) for name in images.SERVICES}


def tar(*members: tuple[str, bytes, int]) -> bytes:
    """Return an archive of (name, content, time)."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content, time in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uid = len(content), time + 0.5, 65532
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def members_of(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {member.name: member for member in opened}


# --- version and notes -----------------------------------------------------------------------------------


def test_a_tag_of_another_version_is_refused():
    facts.check_tag(f"v{facts.version()}")
    with pytest.raises(LabError, match=r"the tag must be v.*, the content of VERSION, got 'v0\.0\.1'"):
        facts.check_tag("v0.0.1")


def test_notes_are_the_section_of_the_version():
    notes = changelog.notes(CHANGELOG, "9.8.7")
    assert notes.startswith("A summary.")
    assert "Something" not in notes


def test_links_of_the_notes_lead_to_the_tag():
    notes = changelog.notes(CHANGELOG, "9.8.7")
    assert "[page](https://github.com/JaeAeich/poiesis/blob/v9.8.7/docs/page.md)" in notes
    assert "[TES](https://example.org/tes)" in notes


def test_a_version_without_notes_is_refused():
    with pytest.raises(LabError, match=r"no section \[9\.9\.9\].*rename \[Unreleased\]"):
        changelog.notes(CHANGELOG, "9.9.9")


def test_changes_have_kind_and_plain_text():
    assert changelog.changes(CHANGELOG, "9.8.7") == [
        {"kind": "added", "description": "A page and TES."},
        {"kind": "fixed", "description": "A bug."},
    ]


def test_the_changelog_has_notes_for_this_version():
    assert changelog.notes((ROOT / "CHANGELOG.md").read_text(), facts.version()).strip()


# --- archives and layouts --------------------------------------------------------------------------------


def test_layer_has_no_time_after_the_commit():
    layer = tar(("old", b"1", OTHER_DAY), ("new", b"2", FACTS.epoch + 60))
    found = members_of(archives.clamped(layer, FACTS.epoch))
    assert {name: member.mtime for name, member in found.items()} == {"old": OTHER_DAY, "new": FACTS.epoch}
    assert found["new"].uid == 65532


@pytest.mark.parametrize("links", [{"type": tarfile.SYMTYPE}, {"type": tarfile.LNKTYPE}])
def test_layer_keeps_links_and_attributes(links: Mapping[str, Any]):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        file = tarfile.TarInfo("file")
        file.pax_headers = {"SCHILY.xattr.security.capability": "x", "mtime": "1.5"}
        archive.addfile(file)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = links["type"], "file"
        archive.addfile(link)
    found = members_of(archives.clamped(target.getvalue(), FACTS.epoch))
    assert (found["link"].type, found["link"].linkname) == (links["type"], "file")
    assert found["file"].pax_headers == {"SCHILY.xattr.security.capability": "x"}


def test_archives_do_not_depend_on_time_and_order():
    first = tar(("b", b"2", OTHER_DAY), ("a", b"1", OTHER_DAY))
    second = gzip.compress(tar(("a", b"1", FACTS.epoch), ("b", b"2", FACTS.epoch)))
    assert archives.repacked(first, FACTS.epoch) == archives.repacked(second, FACTS.epoch)
    assert archives.zipped({"a": b"1", "b": b"2"}, 5) == archives.zipped({"b": b"2", "a": b"1"}, 5)


def test_layout_names_blobs_by_digest(tmp_path: Path):
    layout = oci.Layout(tmp_path)
    config = layout.blob(b"{}", oci.CONFIG)
    manifest = layout.manifest(config, [layout.blob(b"layer", oci.LAYER)], {"a": "b"})
    digest = layout.finish(layout.index([manifest], {}), "1.0")
    for blob in (tmp_path / "blobs/sha256").iterdir():
        assert oci.digest_of(blob.read_bytes()) == f"sha256:{blob.name}"
    (root,) = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert root["digest"] == digest
    assert root["annotations"] == {"org.opencontainers.image.ref.name": "1.0"}


def test_platform_of_a_manifest_is_in_its_descriptor():
    found = oci.Descriptor(media_type="m", digest=DIGEST, size=1, platform="linux/arm64").document()
    assert found["platform"] == {"os": "linux", "architecture": "arm64"}


def test_image_has_labels_and_one_time():
    of_docker = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "docker_version": "20.10",
        "container": "abc",
        "config": {"User": "65532:65532", "Image": "sha256:0", "Env": [], "Labels": {"mine": "1"}},
        "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "COPY"}],
        "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
    }
    labels = FACTS.annotations("poiesis-api")
    assert images.configuration(of_docker, [DIGEST], labels, FACTS.created) == {
        "architecture": "amd64",
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": {"User": "65532:65532", "Labels": {"mine": "1", **labels}},
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "COPY"}],
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    }
    assert labels["org.opencontainers.image.version"] == "9.8.7"
    assert labels["org.opencontainers.image.revision"] == FACTS.revision


def test_checksums_cover_all_files_but_layouts(tmp_path: Path):
    for name in ("notes.md", "sbom/a.json", "oci/poiesis-api/index.json", "SHA256SUMS"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    hashed = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert checksums(tmp_path) == f"{hashed}  notes.md\n{hashed}  sbom/a.json\n"


# --- the chart -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packaged() -> bytes:
    return chart.package(FACTS, IMAGES, changelog.changes(CHANGELOG, "9.8.7"))


def _file(archive: bytes, name: str) -> Any:
    files = dict(archives.files_of_tar(archive))
    return yaml.safe_load(files[f"poiesis/{name}"])


def test_released_chart_names_registry_and_digests(packaged: bytes):
    found = _file(packaged, "values.yaml")["images"]
    assert found["registry"] == FACTS.registry
    assert found["digests"] == dict.fromkeys(images.SERVICES, DIGEST)


def test_released_chart_keeps_the_comments_of_values(packaged: bytes):
    files = dict(archives.files_of_tar(packaged))
    own = (facts.CHART / "values.yaml").read_text()
    assert files["poiesis/values.yaml"].decode().count("#") == own.count("#")


def test_released_chart_describes_itself_for_artifact_hub(packaged: bytes):
    metadata = chart.metadata_of(packaged)
    annotations = metadata["annotations"]
    assert (metadata["version"], metadata["appVersion"]) == ("9.8.7", "9.8.7")
    assert metadata["icon"].endswith(".svg")
    listed = yaml.safe_load(annotations["artifacthub.io/images"])
    assert len(listed) == len(images.SERVICES)
    assert listed[0] == {
        "name": "poiesis-api",
        "image": f"registry.example.org/bio/poiesis-api:9.8.7@{DIGEST}",
        "platforms": ["linux/amd64", "linux/arm64"],
    }
    assert yaml.safe_load(annotations["artifacthub.io/changes"])[0]["kind"] == "added"
    assert annotations["artifacthub.io/prerelease"] == "false"


def test_chart_is_reproducible(packaged: bytes, tmp_path: Path):
    again = chart.package(FACTS, IMAGES, changelog.changes(CHANGELOG, "9.8.7"))
    assert again == packaged
    metadata = chart.metadata_of(packaged)
    digests = {chart.layout(tmp_path / name, packaged, FACTS, metadata) for name in ("a", "b")}
    assert len(digests) == 1


def test_values_without_the_line_are_refused():
    with pytest.raises(ValueError, match=r"no line for images\.registry"):
        chart.released_values("images: {}\n", "r", {})


# --- the command -----------------------------------------------------------------------------------------


def test_wheel_is_reproducible(tmp_path: Path):
    release = Facts(version=facts.version(), revision="", epoch=FACTS.epoch, registry="")
    first, second = (command.wheel(tmp_path / name, release) for name in ("a", "b"))
    assert first.name == f"poiesis_cli-{facts.version()}-py3-none-any.whl"
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        metadata = archive.read(f"poiesis_cli-{facts.version()}.dist-info/METADATA").decode()
    assert "Name: poiesis-cli" in metadata


# --- bills of material and licenses ----------------------------------------------------------------------

LOCK = """\
aiohttp==3.14.5 \\
    --hash=sha256:0a \\
    --hash=sha256:0b
    # via -r requirements.in
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:0c
Typing_Extensions==4.16.0 \\
    --hash=sha256:0d
"""


def test_lock_is_read_for_linux():
    assert [(one.name, one.version, one.hashes) for one in sbom.locked(LOCK)] == [
        ("aiohttp", "3.14.5", ("0a", "0b")),
        ("Typing_Extensions", "4.16.0", ("0d",)),
    ]


def test_bill_of_material_lists_packages_and_base(tmp_path: Path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(LOCK)
    made = [
        sbom.document("poiesis-api", ComponentType.CONTAINER, lock, FACTS, base=f"python:3.13-slim@{DIGEST}")
        for _ in range(2)
    ]
    assert made[0] == made[1]
    found = json.loads(made[0])
    assert found["bomFormat"] == "CycloneDX"
    assert found["metadata"]["component"]["name"] == "poiesis-api"
    assert {one.get("purl", one["name"]) for one in found["components"]} == {
        "pkg:pypi/aiohttp@3.14.5",
        "pkg:pypi/typing-extensions@4.16.0",
        "python",
    }


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 AND BSD-2-Clause", True),
        ("GPL-3.0-only OR MIT", True),
        ("(Apache-2.0 OR GPL-2.0-only) AND MIT", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("Apache Software License; BSD License", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("BSD License; GNU General Public License (GPL)", False),
        ("unknown", False),
    ],
)
def test_licenses_are_compared_with_the_list(text: str, allowed: bool):
    assert licenses.is_allowed(text) is allowed


def test_a_license_off_the_list_is_reported():
    found = [{"name": "a", "version": "1", "license": "MIT"}, {"name": "b", "version": "2", "license": "GPL"}]
    assert licenses.problems(found) == ["b 2: license not on the list: GPL"]


def test_audit_without_database_is_skipped_loudly(monkeypatch, capsys):
    monkeypatch.setattr(audit, "why_not", lambda: "no route to host")
    assert audit.main([]) == 0
    assert "AUDIT SKIPPED, no vulnerability was looked for: no route to host" in capsys.readouterr().err
    assert audit.main(["--required"]) == 1


def test_audit_covers_all_locks_of_the_product(monkeypatch):
    commands = []
    monkeypatch.setattr(audit, "why_not", lambda: None)
    monkeypatch.setattr(
        audit.subprocess,
        "run",
        lambda command, **_: commands.append(command) or SimpleNamespace(returncode=1),
    )
    assert audit.main([]) == 1
    covered = {Path(one).parent.name for one in commands[0] if one.endswith("requirements.lock")}
    assert covered == {"api", "cli", "gateway", "migrations", "rclone", "setup", "tctl", "tif", "tof", "trec"}


# --- publishing ------------------------------------------------------------------------------------------


def test_images_and_chart_have_their_places_in_the_registry():
    manifest = {
        "registry": "r/x",
        "version": "1.0",
        "artifacts": {"poiesis-api": DIGEST, "charts/poiesis": DIGEST},
    }
    assert list(publish.destinations(manifest)) == [
        ("poiesis-api", "r/x/poiesis-api:1.0", DIGEST),
        ("charts/poiesis", "r/x/charts/poiesis:1.0", DIGEST),
    ]


# --- the workflow ----------------------------------------------------------------------------------------

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.y*ml"))


def _uses(text: str) -> list[str]:
    return re.findall(r"uses: (\S+)", text)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda one: one.name)
def test_actions_are_pinned_by_commit(path: Path):
    assert [one for one in _uses(path.read_text()) if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", one)] == []


def test_release_workflow_runs_on_tags_only():
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text())
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true
    assert workflow["permissions"] == {}


def test_release_workflow_checks_before_it_publishes_and_signs_what_it_published():
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text())
    steps = [step.get("run", "") + step.get("uses", "") for step in workflow["jobs"]["release"]["steps"]]
    order = (
        "make audit REQUIRED=1",
        'release build --tag "$GITHUB_REF_NAME"',
        "release publish",
        "cosign sign --yes",
        "actions/attest-build-provenance",
        "gh release create",
    )
    positions = [next(at for at, step in enumerate(steps) if text in step) for text in order]
    assert positions == sorted(positions)
