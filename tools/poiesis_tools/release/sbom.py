"""Bills of material in CycloneDX: what of other projects is in an image or in the command, from its lock."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement

from poiesis_tools.release.facts import PROJECT, Facts

_ON_LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}


@dataclass(frozen=True, kw_only=True)
class Locked:
    """A package of a lock, with the SHA-256 digests of its files."""

    name: str
    version: str
    hashes: tuple[str, ...]


def locked(text: str) -> list[Locked]:
    """Return the packages of a requirements lock that are installed on Linux."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        specification, *hashes = line.split("--hash=sha256:")
        requirement = Requirement(specification)
        if requirement.marker is None or requirement.marker.evaluate(_ON_LINUX):
            (version,) = (one.version for one in requirement.specifier)
            stripped = tuple(one.strip() for one in hashes)
            found.append(Locked(name=requirement.name, version=version, hashes=stripped))
    return found


def document(name: str, kind: ComponentType, lock: Path | None, facts: Facts, *, base: str = "") -> bytes:
    """Return the bill of material of one artifact as JSON. `base`: the image it is built from."""
    root = Component(
        name=name,
        type=kind,
        version=facts.version,
        bom_ref=name,  # of all components, otherwise a random one
        licenses=[LicenseExpression("Apache-2.0")],
        external_references=[ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(PROJECT))],
    )
    packages = locked(lock.read_text()) if lock else []
    parts = [_package(one) for one in packages] + ([_image(base)] if base else [])
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"{PROJECT}/{name}/{facts.version}/{facts.revision}"),
        metadata=BomMetaData(component=root, timestamp=datetime.fromtimestamp(facts.epoch, UTC)),
        components=parts,
    )
    bom.register_dependency(root, parts)
    made: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    return json.dumps(made, indent=2, sort_keys=True).encode() + b"\n"


def _package(one: Locked) -> Component:
    purl = PackageURL("pypi", name=one.name.lower(), version=one.version)
    return Component(
        name=one.name,
        type=ComponentType.LIBRARY,
        version=one.version,
        purl=purl,
        bom_ref=str(purl),
        hashes=_hashes(one.hashes),
    )


def _hashes(values: Sequence[str]) -> list[HashType]:
    """Return the digest of a package with one file; which of several files is installed is not known here."""
    return [HashType(alg=HashAlgorithm.SHA_256, content=values[0])] if len(values) == 1 else []


def _image(reference: str) -> Component:
    image, _, digest = reference.partition("@")
    name, _, tag = image.rpartition(":")
    return Component(name=name, type=ComponentType.CONTAINER, version=digest or tag, bom_ref=reference)
