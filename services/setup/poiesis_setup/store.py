"""Read and write Secrets of one namespace."""

import base64
import logging
from collections.abc import Callable
from typing import Any

from poiesis_kube.client import Object
from poiesis_kube.errors import Refused
from poiesis_kube.namespace import Namespace
from poiesis_setup.decide import TLS_KEY, Change, Data, Stored

ROTATION = "poiesis.io/rotation"
# No app.kubernetes.io/instance: Argo CD would count the Secret among an application's objects and prune it.
_LABELS = {
    "app.kubernetes.io/name": "poiesis",
    "app.kubernetes.io/part-of": "poiesis",
    "app.kubernetes.io/managed-by": "poiesis-setup",
}
_ATTEMPTS = 5  # other runs may write at the same time

logger = logging.getLogger(__name__)


async def read(namespace: Namespace, name: str) -> Stored | None:
    """Return a Secret, None if it does not exist."""
    found = await _found(namespace, name)
    return None if found is None else _stored(found)


async def ensure(
    namespace: Namespace, name: str, rotation: str, decide: Callable[[Stored | None], Change | None]
) -> Data:
    """Write what `decide` returns, and return the Secret's data. Raise Refused, Unreachable.

    If another run wrote in between, the Secret is read and decided about again.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        found = await _found(namespace, name)
        stored = None if found is None else _stored(found)
        change = decide(stored)
        if change is None:
            assert stored is not None  # noqa: S101 - every decision creates what does not exist
            logger.info("Secret is up to date", extra={"secret": name})
            return stored.data
        try:
            if found is None:
                await namespace.create(_created(name, change, rotation))
            else:
                await namespace.replace(_changed(found, change, rotation))
        except Refused as error:
            if not error.conflict or attempt == _ATTEMPTS:
                raise
            logger.info("Secret changed meanwhile, reading it again", extra={"secret": name})
            continue
        logger.info("wrote Secret", extra={"secret": name, "reason": change.reason})
        return change.data
    raise AssertionError("unreachable")


async def _found(namespace: Namespace, name: str) -> dict[str, Any] | None:
    try:
        return await namespace.read("Secret", name)
    except Refused as error:
        if error.not_found:
            return None
        raise


def _stored(found: Object) -> Stored:
    metadata = found["metadata"]
    labels = metadata.get("labels") or {}
    return Stored(
        data={key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()},
        rotation=(metadata.get("annotations") or {}).get(ROTATION, ""),
        ours=labels.get("app.kubernetes.io/part-of") == "poiesis",
    )


def _created(name: str, change: Change, rotation: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": _LABELS,
            **({"annotations": {ROTATION: rotation}} if rotation else {}),
        },
        "type": "kubernetes.io/tls" if TLS_KEY in change.data else "Opaque",
        "data": _encoded(change.data),
    }


def _changed(found: Object, change: Change, rotation: str) -> Object:
    """Return the stored Secret with other data. Its resourceVersion makes a concurrent change a conflict."""
    metadata = dict(found["metadata"])
    if rotation and change.rotated:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), ROTATION: rotation}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        **found,
        "metadata": metadata,
        "data": _encoded(change.data),
    }


def _encoded(data: Data) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in data.items()}
