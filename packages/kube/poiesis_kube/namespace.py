"""The objects of one namespace: create, read, list, patch, replace, delete."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from poiesis_kube.client import Client, Object
from poiesis_kube.errors import Refused

_COLLECTIONS = {
    "Event": ("/api/v1", "events"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Lease": ("/apis/coordination.k8s.io/v1", "leases"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Pod": ("/api/v1", "pods"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "Secret": ("/api/v1", "secrets"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
}


class Namespace:
    """One namespace of one API server. Every call raises Refused or Unreachable, and may be repeated."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self.namespace = namespace

    async def create(self, manifest: Object) -> dict[str, Any]:
        """Return the object as it is stored."""
        return await self._client.request("POST", self.path(manifest["kind"]), body=manifest)

    async def read(self, kind: str, name: str) -> dict[str, Any]:
        """Return the object."""
        return await self._client.request("GET", self.path(kind, name))

    async def list_all(self, kind: str, params: Mapping[str, str]) -> list[Object]:
        """Return all objects that match, in one response: for the few of one task."""
        response = await self._client.request("GET", self.path(kind), params=params)
        return list(response.get("items") or ())

    async def patch(self, kind: str, name: str, patch: Object) -> dict[str, Any]:
        """Merge `patch` into the object and return it. A `metadata.uid` in it must be the object's."""
        return await self._client.request("PATCH", self.path(kind, name), body=patch)

    async def replace(self, manifest: Object) -> dict[str, Any]:
        """Return the object as it is stored. Refused (409) if its resourceVersion is not the current one."""
        path = self.path(manifest["kind"], manifest["metadata"]["name"])
        return await self._client.request("PUT", path, body=manifest)

    async def delete(self, kind: str, name: str, *, uid: str | None = None) -> None:
        """Delete the object and, in the background, all that it owns.

        An object that does not exist, or that has another uid, is no error.
        """
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        body = options if uid is None else {**options, "preconditions": {"uid": uid}}
        try:
            await self._client.request("DELETE", self.path(kind, name), body=body)
        except Refused as error:
            if not (error.not_found or (uid is not None and error.conflict)):
                raise

    def path(self, kind: str, name: str | None = None) -> str:
        """Return the path of a kind's collection in this namespace, or of one of its objects."""
        group, plural = _COLLECTIONS[kind]
        path = f"{group}/namespaces/{self.namespace}/{plural}"
        return path if name is None else f"{path}/{quote(name)}"
