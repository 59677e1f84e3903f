"""The requests that the controller sends to Kubernetes.

The Role that tctl needs in each namespace of tasks (a Role may only grant what its creator may do):

| group | resource | verbs | why |
|---|---|---|---|
| "" | pods | get, list, watch, patch, delete | the cache; recorders' rights; ending and canceling |
| "" | events | list, watch | why a Job has no Pod; what happens to the Pods |
| batch | jobs | get, list, watch, delete | the cache; cancels and leftovers |
| kueue.x-k8s.io | workloads | list, watch | with Kueue: why a Job waits, or will never run |
| rbac.authorization.k8s.io | roles, rolebindings | create | recorders may watch their Pods |

In its own namespace it needs `create` of coordination.k8s.io leases, which cannot name an object, and `get`
and `update` of its Lease: leader election.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from poiesis_kube import client
from poiesis_kube.client import Object
from poiesis_kube.errors import Refused, Unreachable
from poiesis_kube.namespace import Namespace
from poiesis_models.labels import task_selector
from poiesis_tctl.podfacts import ENDED_BY_US

_KUEUE = "kueue.x-k8s.io"


class Kube(Namespace):
    """One namespace of tasks. Every call raises Refused or Unreachable, and may be repeated."""

    async def list_page(self, collection: str, params: Mapping[str, str]) -> Object:
        """Return one page of a collection, named by its path."""
        return await self._client.request("GET", collection, params=params)

    def watch(
        self, collection: str, params: Mapping[str, str], *, silence: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a watch of a collection; see `Client.watch`."""
        return self._client.watch(collection, params, silence=silence)

    async def pods_of(self, task_id: str) -> list[Object]:
        """Return the Pods of a task from the API server, not from a cache."""
        return await self.list_all("Pod", {"labelSelector": task_selector(task_id)})

    async def jobs_of(self, task_id: str) -> list[Object]:
        """Return the Jobs of a task from the API server, not from a cache."""
        return await self.list_all("Job", {"labelSelector": task_selector(task_id)})

    async def create_if_missing(self, manifest: Object) -> None:
        """Create an object. One with the same name is kept."""
        try:
            await self.create(manifest)
        except Refused as error:
            if not error.conflict:
                raise

    async def end_pod(self, name: str, uid: str) -> None:
        """Let the kubelet end the Pod with its grace period. The object and its status stay.

        A Pod that does not exist, or has another uid, is no error.
        """
        try:
            deadline = {"activeDeadlineSeconds": ENDED_BY_US}
            await self.patch("Pod", name, {"metadata": {"uid": uid}, "spec": deadline})
        except Refused as error:
            if not (error.not_found or error.conflict):
                raise

    async def delete_job(self, name: str, uid: str) -> None:
        """Delete the Job and, in the background, its Pod. A Job that does not exist is no error."""
        await self.delete("Job", name, uid=uid)

    async def delete_pod(self, name: str, uid: str) -> None:
        """Delete the Pod with its grace period. One that does not exist, or has another uid, is no error."""
        await self.delete("Pod", name, uid=uid)

    async def served_version(self, group: str) -> str:
        """Return the version of an API group that the API server prefers. Refused (404) without the group."""
        response = await self._client.request("GET", f"/apis/{group}")
        return str(response["preferredVersion"]["version"])

    async def events_of(self, uid: str, **fields: str) -> list[Object]:
        """Return the events about the object with this uid, unordered. `fields`: for example reason, type."""
        selector = ",".join(
            f"{name}={value}" for name, value in {"involvedObject.uid": uid, **fields}.items()
        )
        return await self.list_all("Event", {"fieldSelector": selector})

    async def get_lease(self, name: str) -> Object:
        """Return the Lease."""
        return _lease(await self.read("Lease", name))

    async def create_lease(self, lease: Object) -> Object:
        """Return the Lease as it is stored."""
        return _lease(await self.create(lease))

    async def replace_lease(self, lease: Object) -> Object:
        """Return the Lease as it is stored. Refused (409) if its resourceVersion is not the current one."""
        return _lease(await self.replace(lease))


class KueueWorkloads:
    """The Workloads of a namespace for an informer, in the API version that Kueue serves at the time."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._path = ""

    async def list_page(self, collection: str, params: Mapping[str, str]) -> Object:
        """Return one page. The first page of each list determines the version."""
        if "continue" not in params:
            version = await self._kube.served_version(_KUEUE)
            self._path = f"/apis/{_KUEUE}/{version}/namespaces/{self._kube.namespace}/{collection}"
        return await self._kube.list_page(self._path, params)

    def watch(
        self, _: str, params: Mapping[str, str], *, silence: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a watch in the version of the last list."""
        return self._kube.watch(self._path, params, silence=silence)


@asynccontextmanager
async def connect(kubeconfig: str | None) -> AsyncIterator[Callable[[str], Kube]]:
    """Open a client for as long as the block lasts. Yield a function from a namespace's name to its client.

    Raise Unreachable if there are no credentials.
    """
    async with client.connect(kubeconfig) as api:
        yield partial(Kube, api)


def _lease(document: Object) -> Object:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not {"name", "resourceVersion"} <= metadata.keys():
        raise Unreachable(f"the response is not a Lease: {json.dumps(document)[:200]}")
    return document
