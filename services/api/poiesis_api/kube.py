"""The few requests to the Kubernetes API that submission needs; every one may be repeated.

Manifests are plain JSON: a pooled connection of the official client carries them, without its models.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import ApiClient, Configuration

from poiesis_api.config import ConfigError

Manifest = dict[str, Any]

REQUEST_SECONDS = 10.0
_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_COLLECTIONS = {
    "Job": ("/apis/batch/v1", "jobs"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Secret": ("/api/v1", "secrets"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
}
_HTTP_OK = range(200, 300)
_CONNECTION_LOST = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


class KubernetesError(Exception):
    """Base."""


class Unreachable(KubernetesError):
    """No answer."""


class Refused(KubernetesError):
    """An answer other than success, with the API server's `Status`."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message

    @property
    def not_found(self) -> bool:
        """The object does not exist."""
        return self.status == 404  # noqa: PLR2004

    @property
    def already_exists(self) -> bool:
        """409 has other meanings too: a quota that changed meanwhile."""
        return self.reason == "AlreadyExists"


class Kubernetes:
    """One namespace."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def create(self, manifest: Manifest) -> Manifest:
        """The object as it is stored. Raise Refused or Unreachable."""
        return await self._call("POST", self._path(manifest["kind"]), manifest)

    async def read(self, kind: str, name: str) -> Manifest:
        """Raise Refused or Unreachable."""
        return await self._call("GET", self._path(kind, name))

    async def unsuspend(self, job: str) -> None:
        """Let the Job controller make the Pod. Raise Refused or Unreachable."""
        await self._call("PATCH", self._path("Job", job), {"spec": {"suspend": False}}, _MERGE_PATCH)

    async def delete_job(self, job: str) -> None:
        """With everything it owns; a Job that is not there is deleted. Raise Refused or Unreachable."""
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        try:
            await self._call("DELETE", self._path("Job", job), options)
        except Refused as refusal:
            if not refusal.not_found:
                raise

    def _path(self, kind: str, name: str | None = None) -> str:
        group, plural = _COLLECTIONS[kind]
        path = f"{group}/namespaces/{self._namespace}/{plural}"
        return path if name is None else f"{path}/{name}"

    async def _call(
        self, method: str, path: str, body: Manifest | None = None, content_type: str = _JSON
    ) -> Manifest:
        try:
            try:
                return await self._call_once(method, path, body, content_type)
            except _CONNECTION_LOST:  # a pooled connection that the other side had closed
                return await self._call_once(method, path, body, content_type)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"{method} {path}: {error!r}") from error

    async def _call_once(self, method: str, path: str, body: Manifest | None, content_type: str) -> Manifest:
        _, url, headers, _, _ = await self._client.param_serialize(
            method,
            path,
            header_params={"Accept": _JSON, "Content-Type": content_type},
            auth_settings=["BearerToken"],
        )
        response = await self._client.call_api(
            method, url, headers, body, _request_timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        )
        text: bytes = await response.response.read()
        if response.status not in _HTTP_OK:
            raise _refused(response.status, text)
        try:
            answer: Manifest = json.loads(text)
        except ValueError as error:
            raise Unreachable(f"{method} {path}: something else than Kubernetes answers") from error
        return answer


def _refused(status: int, text: bytes) -> Refused:
    """A proxy or webhook in between may answer with anything."""
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {"message": text[:1000].decode("utf-8", "replace")}
    return Refused(status, str(answer.get("reason") or "Unknown"), str(answer.get("message") or ""))


@asynccontextmanager
async def connect(namespace: str, env: Mapping[str, str] = os.environ) -> AsyncIterator[Kubernetes]:
    """By the Pod's ServiceAccount, or outside a cluster by the kubeconfig. Raise ConfigError."""
    configuration = Configuration()
    try:
        if "KUBERNETES_SERVICE_HOST" in env:
            kubernetes_config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration
            )
        else:
            await kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration
            )
    except kubernetes_config.ConfigException as error:
        raise ConfigError(f"no access to Kubernetes: {error}") from error
    async with client(configuration, namespace) as kubernetes:
        yield kubernetes


@asynccontextmanager
async def client(configuration: Configuration, namespace: str) -> AsyncIterator[Kubernetes]:
    """One pool of connections."""
    async with ApiClient(configuration) as api_client:
        yield Kubernetes(api_client, namespace)
    await asyncio.sleep(0)  # lets closed transports go before the loop ends
