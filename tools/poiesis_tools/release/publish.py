"""Push the images and the chart of build/release to a registry, and check their digests there."""

import json
from collections.abc import Iterator
from pathlib import Path

from poiesis_lab import binaries
from poiesis_lab.errors import LabError
from poiesis_lab.shell import run, step


def destinations(manifest: dict[str, object]) -> Iterator[tuple[str, str, str]]:
    """Yield folder, reference with tag, and digest of every artifact in digests.json."""
    registry, version, artifacts = manifest["registry"], manifest["version"], manifest["artifacts"]
    if not isinstance(artifacts, dict):
        raise LabError("digests.json has no object `artifacts`; run `make release` again")
    for name, digest in artifacts.items():
        yield name, f"{registry}/{name}:{version}", digest


def publish(folder: Path) -> None:
    """Push everything that digests.json in `folder` lists; raise LabError if a digest differs."""
    crane = binaries.crane()
    for name, reference, digest in destinations(json.loads((folder / "digests.json").read_text())):
        with step(f"push {reference}"):
            run([crane, "push", folder / "oci" / name, reference])
            found = run([crane, "digest", reference]).strip()
        if found != digest:
            raise LabError(f"{reference} must have the digest {digest}, the registry reports {found}")
