"""Package the chart of a release: image digests, annotations for Artifact Hub, and its OCI layout."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from poiesis_lab import binaries
from poiesis_lab.shell import run
from poiesis_tools.release import oci
from poiesis_tools.release.archives import files_of_tar, repacked
from poiesis_tools.release.facts import CHART, PROJECT, Facts
from poiesis_tools.release.images import Built

# https://helm.sh/docs/topics/registries/#helm-chart-manifest
_CONFIG = "application/vnd.cncf.helm.config.v1+json"
_CONTENT = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


def package(facts: Facts, images: Mapping[str, Built], changes: Sequence[Mapping[str, str]]) -> bytes:
    """Return the chart as .tgz; `changes` are those of the changelog."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / CHART.name
        shutil.copytree(CHART, folder)
        values = folder / "values.yaml"
        digests = {service: image.digest for service, image in sorted(images.items())}
        values.write_text(released_values(values.read_text(), facts.registry, digests))
        metadata = folder / "Chart.yaml"
        document = released_metadata(yaml.safe_load(metadata.read_text()), facts, images, changes)
        metadata.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000))
        run([binaries.helm(), "lint", "--strict", "--quiet", folder])
        run([binaries.helm(), "package", folder, "--destination", name])
        (archive,) = Path(name).glob("*.tgz")
        return repacked(archive.read_bytes(), facts.epoch)


def layout(folder: Path, archive: bytes, facts: Facts, metadata: Mapping[str, Any]) -> str:
    """Write the packaged chart as an OCI artifact, as `helm push` does; return its digest."""
    made = oci.Layout(folder)
    annotations = facts.annotations(metadata["name"])
    annotations["org.opencontainers.image.description"] = metadata["description"]
    config = made.blob(oci.encoded(metadata), _CONFIG)
    return made.finish(
        made.manifest(config, [made.blob(archive, _CONTENT)], annotations), metadata["version"]
    )


def metadata_of(archive: bytes) -> dict[str, Any]:
    """Return Chart.yaml of a packaged chart."""
    content = next(body for name, body in files_of_tar(archive) if name.endswith("/Chart.yaml"))
    found: dict[str, Any] = yaml.safe_load(content)
    return found


def released_values(text: str, registry: str, digests: Mapping[str, str]) -> str:
    """Return values.yaml with the registry and the digests of a release; comments stay."""
    return _with_value(_with_value(text, "registry", registry), "digests", dict(digests))


def _with_value(text: str, key: str, value: object) -> str:
    """Replace a value of `images`, the first object with such a key; a comment on the line stays."""
    line = re.search(rf"(?m)^  {key}: (?P<value>\S+)", text)
    if line is None:
        raise ValueError(f"values.yaml has no line for images.{key}")
    return text[: line.start("value")] + json.dumps(value) + text[line.end("value") :]


def released_metadata(
    metadata: Mapping[str, Any],
    facts: Facts,
    images: Mapping[str, Built],
    changes: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """Return Chart.yaml with annotations for Artifact Hub (https://artifacthub.io/docs/topics/annotations/helm/)."""
    listed = [
        {
            "name": f"poiesis-{service}",
            "image": f"{facts.registry}/poiesis-{service}:{facts.version}@{image.digest}",
            "platforms": list(image.platforms),
        }
        for service, image in sorted(images.items())
    ]
    links = [{"name": "documentation", "url": f"{PROJECT}/tree/v{facts.version}/docs"}]
    annotations = {
        **metadata["annotations"],
        "artifacthub.io/images": _text(listed),
        "artifacthub.io/changes": _text(changes),
        "artifacthub.io/links": _text(links),
        "artifacthub.io/prerelease": str("-" in facts.version).lower(),
    }
    return {**metadata, "version": facts.version, "appVersion": facts.version, "annotations": annotations}


def _text(value: Sequence[Mapping[str, Any]]) -> str:
    return yaml.safe_dump([dict(one) for one in value], sort_keys=False, allow_unicode=True, width=1000)
