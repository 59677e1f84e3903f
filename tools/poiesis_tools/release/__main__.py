"""`make release`: build everything a release has into build/release, and push it to a registry.

    python -m poiesis_tools.release build [--registry HOST/PATH] [--platform OS/ARCH ...] [--tag vX.Y.Z]
    python -m poiesis_tools.release publish

Two builds of one commit give the same bytes. docs/development/releasing.md describes the files.
"""

import argparse
import hashlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from cyclonedx.model.component import ComponentType

from poiesis_lab import images as bases
from poiesis_lab import services
from poiesis_lab.errors import LabError
from poiesis_lab.shell import report, step
from poiesis_tools.release import changelog, chart, command, facts, images, licenses, oci, publish, sbom
from poiesis_tools.release.facts import Facts
from poiesis_tools.workspace import ROOT

FOLDER = ROOT / "build/release"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="make release", description="Build and publish a release.")
    top.add_argument("--folder", type=Path, default=FOLDER, help="default: build/release")
    commands = top.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build everything; nothing is published")
    build.add_argument("--registry", metavar="HOST/PATH", help="default: images.registry of the chart")
    build.add_argument(
        "--platform",
        action="append",
        default=[],
        metavar="OS/ARCH",
        help=f"build for it or fail (default: those of {', '.join(images.PLATFORMS)} that work here)",
    )
    build.add_argument("--tag", metavar="TAG", help="fail unless this is the tag of the content of VERSION")
    commands.add_parser("publish", help="push images and chart to their registry")
    return top


def build(folder: Path, release: Facts, platforms: list[str]) -> None:
    """Write all files of a release to `folder`, which is emptied first."""
    changes = (ROOT / "CHANGELOG.md").read_text()
    notes = changelog.notes(changes, release.version)  # first: it fails early
    if folder.exists():
        shutil.rmtree(folder)
    (folder / "sbom").mkdir(parents=True)
    (folder / "notes.md").write_text(notes)
    with step("build the command"):
        wheel = command.wheel(folder, release)
        (folder / "poiesis.pyz").write_bytes(command.zipapp(wheel, release))
        (folder / "poiesis.pyz").chmod(0o755)
    with step("collect licenses"):
        _write_licenses(folder)
    built = images.build(folder / "oci", release, platforms)
    with step("package the chart"):
        archive = chart.package(release, built, changelog.changes(changes, release.version))
        (folder / f"poiesis-{release.version}.tgz").write_bytes(archive)
        digest = chart.layout(folder / "oci/charts/poiesis", archive, release, chart.metadata_of(archive))
    _write_sboms(folder / "sbom", release)
    _write_digests(folder, release, built, digest)
    (folder / "SHA256SUMS").write_text(checksums(folder))


def _write_licenses(folder: Path) -> None:
    found = licenses.collect()
    if messages := licenses.problems(found):
        raise LabError("\n".join(messages))
    (folder / "licenses.json").write_text(licenses.encoded(found))


def _write_sboms(folder: Path, release: Facts) -> None:
    base = bases.images().python_base
    for name in images.SERVICES:
        lock = (ROOT / services.SOURCES[name].dockerfile).parent / "requirements.lock"
        in_image = lock if lock in licenses.product_locks() else None
        text = sbom.document(
            f"poiesis-{name}",
            ComponentType.CONTAINER,
            in_image,
            release,
            base="" if services.is_from_scratch(name) else base,
        )
        (folder / f"poiesis-{name}.cdx.json").write_bytes(text)
    lock = ROOT / "cli/requirements.lock"
    text = sbom.document("poiesis-cli", ComponentType.APPLICATION, lock, release)
    (folder / "poiesis-cli.cdx.json").write_bytes(text)


def _write_digests(
    folder: Path, release: Facts, built: Mapping[str, images.Built], chart_digest: str
) -> None:
    artifacts = {f"poiesis-{name}": image.digest for name, image in sorted(built.items())}
    document = {
        "registry": release.registry,
        "version": release.version,
        "revision": release.revision,
        "artifacts": {**artifacts, "charts/poiesis": chart_digest},
        "platforms": {f"poiesis-{name}": list(image.platforms) for name, image in built.items()},
    }
    (folder / "digests.json").write_bytes(oci.encoded(document))
    listed = [f"{release.registry}/{name}:{release.version}@{digest}\n" for name, digest in artifacts.items()]
    (folder / "images.txt").write_text("".join(listed))


def checksums(folder: Path) -> str:
    """Return the input of `sha256sum --check` for all files except the OCI layouts, which have digests."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder) for path in found]
    return "".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in names
        if name.parts[0] not in {"oci", "SHA256SUMS"}
    )


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    try:
        if options.command == "publish":
            publish.publish(options.folder)
            return 0
        if options.tag is not None:
            facts.check_tag(options.tag)
        build(options.folder, facts.gather(options.registry), options.platform)
    except LabError as error:
        report(f"release: {error}")
        return 1
    report(f"release: {options.folder} is complete")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
