"""Write OCI image layouts: blobs named by their digest, and an index (OCI image-spec, image-layout.md)."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """A reference to a blob. `platform`: of a manifest in an index, such as linux/amd64."""

    media_type: str
    digest: str
    size: int
    platform: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the descriptor as the specification writes it."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.platform is not None:
            system, architecture = self.platform.split("/")[:2]
            found["platform"] = {"architecture": architecture, "os": system}
        return found | ({"annotations": dict(self.annotations)} if self.annotations else {})


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Layout:
    """A layout of one artifact in a folder, which is emptied first."""

    def __init__(self, folder: Path) -> None:
        if folder.exists():
            shutil.rmtree(folder)
        self._folder = folder
        self._blobs = folder / "blobs" / "sha256"
        self._blobs.mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, content: bytes, media_type: str) -> Descriptor:
        """Store a blob."""
        digest = digest_of(content)
        (self._blobs / digest.partition(":")[2]).write_bytes(content)
        return Descriptor(media_type=media_type, digest=digest, size=len(content))

    def manifest(
        self, config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str]
    ) -> Descriptor:
        """Store the manifest of one image or artifact."""
        return self._document(
            MANIFEST,
            {"config": config.document(), "layers": [layer.document() for layer in layers]},
            annotations,
        )

    def index(self, manifests: Sequence[Descriptor], annotations: Mapping[str, str]) -> Descriptor:
        """Store the index of one image for several platforms."""
        return self._document(INDEX, {"manifests": [one.document() for one in manifests]}, annotations)

    def finish(self, root: Descriptor, tag: str) -> str:
        """Write index.json, which names the artifact; return its digest."""
        named = replace(root, annotations={"org.opencontainers.image.ref.name": tag})
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named.document()]}
        (self._folder / "index.json").write_bytes(encoded(document))
        return root.digest

    def _document(
        self, media_type: str, content: Mapping[str, Any], annotations: Mapping[str, str]
    ) -> Descriptor:
        document = {"schemaVersion": 2, "mediaType": media_type, **content, "annotations": dict(annotations)}
        return self.blob(encoded(document), media_type)


def encoded(document: Mapping[str, Any]) -> bytes:
    """Return JSON with one form for one content."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
