"""Turn images of docker into OCI images for several platforms, with labels and without build times."""

import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from poiesis_lab import cache, docker, images, services
from poiesis_lab.errors import LabError
from poiesis_lab.shell import report, step
from poiesis_tools.release import oci
from poiesis_tools.release.archives import clamped, compressed, decompressed
from poiesis_tools.release.facts import Facts

SERVICES = tuple(name for name in services.SOURCES if name != "demo")
PLATFORMS = ("linux/amd64", "linux/arm64")
_KEPT = ("architecture", "os", "variant")  # of docker's configuration of an image
_KEPT_CONFIG = ("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "StopSignal")


@dataclass(frozen=True, kw_only=True)
class Built:
    """An image of the release: the digest of its index, and its platforms."""

    digest: str
    platforms: tuple[str, ...]


def build(folder: Path, facts: Facts, required: Sequence[str] = ()) -> dict[str, Built]:
    """Write the layout of every image to `folder`/poiesis-<service>; return them by service.

    Each is built for every platform that this machine can build it for; raise LabError if one of the
    platforms `required` is not among them.
    """
    references: dict[str, dict[str, str]] = {name: {} for name in SERVICES}
    for platform in required or PLATFORMS:
        names = _buildable(platform, required=bool(required))
        for name, reference in services.build(names, platform=platform).items():
            references[name][platform] = reference
    writer = _Writer(facts)
    made: dict[str, Built] = {}
    for name in SERVICES:
        with step(f"write the image {name} for {', '.join(references[name])}"):
            made[name] = writer.write(folder / f"poiesis-{name}", name, references[name])
    return made


def _buildable(platform: str, *, required: bool) -> list[str]:
    """Return the images that this machine can build for a platform, and report the others."""
    reasons = {name: services.why_not_built(name, platform) for name in SERVICES}
    missing = {name: reason for name, reason in reasons.items() if reason}
    if missing and required:
        raise LabError("\n".join(missing.values()))
    if missing:
        report(f"release: not built for {platform}: {', '.join(missing)}\n{next(iter(missing.values()))}")
    return [name for name in SERVICES if name not in missing]


class _Writer:
    """Writes layouts; it keeps the layers, which images share."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._layers: dict[str, bytes] = {}  # by docker's digest

    def write(self, folder: Path, name: str, references: Mapping[str, str]) -> Built:
        """Write one service's images, by platform, as one index."""
        annotations = self._facts.annotations(f"poiesis-{name}") | _base(name)
        annotations["org.opencontainers.image.description"] = f"Poiesis, a GA4GH TES 1.1 server: {name}"
        layout = oci.Layout(folder)
        manifests = [
            replace(self._image(layout, reference, platform, annotations), platform=platform)
            for platform, reference in references.items()
        ]
        digest = layout.finish(layout.index(manifests, annotations), self._facts.version)
        return Built(digest=digest, platforms=tuple(references))

    def _image(
        self, layout: oci.Layout, reference: str, platform: str, annotations: Mapping[str, str]
    ) -> oci.Descriptor:
        config, layers = self._saved(reference)
        digests = [oci.digest_of(layer) for layer in layers]
        document = configuration(config, digests, annotations, self._facts.created)
        if (found := f"{document['os']}/{document['architecture']}") != platform:
            raise LabError(f"{reference} must be for {platform}, but docker labelled it {found}")
        stored = [layout.blob(compressed(layer), oci.LAYER) for layer in layers]
        return layout.manifest(layout.blob(oci.encoded(document), oci.CONFIG), stored, annotations)

    def _saved(self, reference: str) -> tuple[dict[str, Any], list[bytes]]:
        """Return the configuration and the layers (tar) of one image of docker."""
        with cache.workspace() as work:
            docker.docker("save", "--output", work / "image.tar", reference)
            with tarfile.open(work / "image.tar") as saved:
                (entry,) = json.loads(_read(saved, "manifest.json"))
                config = json.loads(_read(saved, entry["Config"]))
                diffs = config["rootfs"]["diff_ids"]
                for diff, path in zip(diffs, entry["Layers"], strict=True):
                    if diff not in self._layers:
                        self._layers[diff] = clamped(decompressed(_read(saved, path)), self._facts.epoch)
        return config, [self._layers[diff] for diff in diffs]


def _base(name: str) -> dict[str, str]:
    """Return the annotations of the base image, if it comes from a registry."""
    reference = images.images().python_base
    image, at, digest = reference.partition("@")
    if not at or services.is_from_scratch(name):
        return {}
    return {"org.opencontainers.image.base.name": image, "org.opencontainers.image.base.digest": digest}


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    content = archive.extractfile(name)
    if content is None:
        raise LabError(f"`docker save` wrote no file {name}")
    return content.read()


def configuration(
    of_docker: Mapping[str, Any], diffs: Sequence[str], annotations: Mapping[str, str], created: str
) -> dict[str, Any]:
    """Return the configuration of an OCI image (image-spec, config.md), with `created` as the only time."""
    config = of_docker["config"]
    kept = {key: config[key] for key in _KEPT_CONFIG if config.get(key)}
    history = [{**step, "created": created} for step in of_docker.get("history", ())]
    return {
        **{key: of_docker[key] for key in _KEPT if of_docker.get(key)},
        "created": created,
        "config": {**kept, "Labels": {**(config.get("Labels") or {}), **annotations}},
        "rootfs": {"type": "layers", "diff_ids": list(diffs)},
        "history": history,
    }
