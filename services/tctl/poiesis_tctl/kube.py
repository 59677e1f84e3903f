"""The API server as plain JSON over HTTP. Credentials and TLS come from the official client's configuration.

The Role that tctl needs, in the namespace of the tasks (a Role may only grant what its maker holds):

| group | resource | verbs | why |
|---|---|---|---|
| "" | pods | get, list, watch, patch | the cache; what it grants to recorders; activeDeadlineSeconds=1 |
| "" | events | list, watch | why a Job has no Pod; what befell the Pods |
| batch | jobs | get, list, watch, delete | the cache; cancels and leftovers |
| kueue.x-k8s.io | workloads | list, watch | with Kueue: why a Job waits, or never will run |
| rbac.authorization.k8s.io | roles, rolebindings | create | the recorder may watch its own Pod |
| coordination.k8s.io | leases | get, create, update | leader election (create cannot be tied to a name) |
"""

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import aiohttp
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import Configuration

from poiesis_models.labels import TASK_LABEL

Object = Mapping[str, Any]

NOT_FOUND, CONFLICT, GONE = 404, 409, 410
_REQUEST_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_EVENT_BYTES = 8 * 1024 * 1024  # an object has at most 1.5 MiB in etcd; JSON is larger than protobuf
_MERGE_PATCH = "application/merge-patch+json"
_KUEUE = "kueue.x-k8s.io"
_NO_PARAMS: Mapping[str, str] = MappingProxyType({})


class KubeError(Exception):
    """The API server said no (`status` is its HTTP code), or could not be reached (`status` is 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status or 'unreachable'} {reason}: {message}")
        self.status = status


async def load_configuration(kubeconfig: str | None) -> Configuration:
    """From `kubeconfig`, else from the Pod's ServiceAccount (whose token is read again as it is rotated)."""
    configuration = Configuration()
    try:
        if kubeconfig:
            await kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig, client_configuration=configuration, persist_config=False
            )
        else:
            kubernetes_config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration
            )
    except (kubernetes_config.ConfigException, OSError) as error:
        raise KubeError(0, "NoCredentials", str(error)) from error
    return configuration


def _tls(configuration: Configuration) -> ssl.SSLContext | bool:
    if not str(configuration.host).startswith("https:"):
        return True
    context = ssl.create_default_context(
        cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data or None
    )
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if hasattr(ssl, "VERIFY_X509_STRICT"):  # clusters' own CAs often lack what Python 3.13 asks for
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class Kube:
    """One namespace of one API server."""

    def __init__(self, session: aiohttp.ClientSession, configuration: Configuration, namespace: str) -> None:
        self._session = session
        self._configuration = configuration
        self._base = str(configuration.host).rstrip("/")
        self.namespace = namespace

    async def list_page(self, collection: str, params: Mapping[str, str]) -> Object:
        """One page of a collection as `pods_path` and its like name it."""
        return await self._request("GET", collection, params=params)

    @asynccontextmanager
    async def watch(
        self, collection: str, params: Mapping[str, str], *, silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The raw lines of a watch. A line is complete: what the server cut off raises KubeError, as does
        `silence` seconds without a byte (TimeoutError) and everything else that ends it before its time."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence)
        try:
            async with self._session.get(
                self._base + collection,
                params={**params, "watch": "1"},
                headers=await self._headers(),
                timeout=timeout,
            ) as response:
                if response.status != 200:  # noqa: PLR2004
                    raise _refusal(response.status, await response.read())
                yield _lines(response.content)
        except aiohttp.SocketTimeoutError as error:
            raise TimeoutError(f"no byte for {silence} s") from error
        except aiohttp.ClientError as error:
            raise KubeError(0, type(error).__name__, str(error)) from error

    async def pods_of(self, task_id: str) -> list[Object]:
        """Straight from the API server, not from a cache."""
        answer = await self._request("GET", self.pods_path, params=_of_task(task_id))
        return list(answer.get("items") or ())

    async def jobs_of(self, task_id: str) -> list[Object]:
        """Straight from the API server, not from a cache."""
        answer = await self._request("GET", self.jobs_path, params=_of_task(task_id))
        return list(answer.get("items") or ())

    async def create_role(self, role: Object) -> None:
        """One that exists is fine: its name is its Pod's."""
        await self._create(f"{self._rbac}/roles", role)

    async def create_role_binding(self, binding: Object) -> None:
        """One that exists is fine: its name is its Pod's."""
        await self._create(f"{self._rbac}/rolebindings", binding)

    async def end_pod(self, name: str, uid: str) -> None:
        """Let the kubelet end it with its whole grace period; the object and its status stay.

        A Pod that is not there any more, or has been made anew, is fine.
        """
        body = {"metadata": {"uid": uid}, "spec": {"activeDeadlineSeconds": 1}}
        try:
            await self._request("PATCH", f"{self.pods_path}/{quote(name)}", body=body)
        except KubeError as error:
            if error.status not in {NOT_FOUND, CONFLICT}:
                raise

    async def delete_job(self, name: str, uid: str) -> None:
        """In the background: the Pod follows. One that is gone, or has been made anew, is fine."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._request("DELETE", f"{self.jobs_path}/{quote(name)}", body=body)
        except KubeError as error:
            if error.status not in {NOT_FOUND, CONFLICT}:
                raise

    async def served_version(self, group: str) -> str:
        """Of an API group: the one that the API server prefers. Refused with 404 if there is none."""
        answer = await self._request("GET", f"/apis/{group}")
        return str(answer["preferredVersion"]["version"])

    async def events_of(self, uid: str, **fields: str) -> list[Object]:
        """Events about the object with this uid, in no order. `fields`: for instance reason, or type."""
        selector = ",".join(
            f"{name}={value}" for name, value in {"involvedObject.uid": uid, **fields}.items()
        )
        answer = await self._request("GET", self.events_path, params={"fieldSelector": selector})
        return list(answer.get("items") or ())

    async def get_lease(self, name: str) -> Object:
        return _lease(await self._request("GET", f"{self._leases}/{quote(name)}"))

    async def create_lease(self, lease: Object) -> Object:
        return _lease(await self._request("POST", self._leases, body=lease))

    async def replace_lease(self, lease: Object) -> Object:
        """Refused with 409 if its resourceVersion is not the current one."""
        path = f"{self._leases}/{quote(lease['metadata']['name'])}"
        return _lease(await self._request("PUT", path, body=lease))

    @property
    def pods_path(self) -> str:
        return f"{self._core}/pods"

    @property
    def events_path(self) -> str:
        return f"{self._core}/events"

    @property
    def jobs_path(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    @property
    def _core(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    @property
    def _rbac(self) -> str:
        return f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}"

    @property
    def _leases(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    async def _create(self, path: str, body: Object) -> None:
        try:
            await self._request("POST", path, body=body)
        except KubeError as error:
            if error.status != CONFLICT:
                raise

    async def _request(
        self, method: str, path: str, *, params: Mapping[str, str] = _NO_PARAMS, body: Object | None = None
    ) -> dict[str, Any]:
        headers = await self._headers()
        if body is not None:
            headers["Content-Type"] = _MERGE_PATCH if method == "PATCH" else "application/json"
        try:
            async with self._session.request(
                method,
                self._base + path,
                params=params,
                headers=headers,
                data=None if body is None else json.dumps(body),
                timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS, sock_connect=_CONNECT_SECONDS),
            ) as response:
                data = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(0, type(error).__name__, f"{method} {path}: {error}") from error
        if status >= 400:  # noqa: PLR2004
            raise _refusal(status, data)
        return _document(data, f"{method} {path}")

    async def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "poiesis-tctl"}
        try:
            settings = await self._configuration.auth_settings()
        except (kubernetes_config.ConfigException, OSError) as error:
            raise KubeError(0, "NoCredentials", str(error)) from error
        token = settings.get("BearerToken")
        if token is not None and token["value"]:
            headers["Authorization"] = token["value"].strip()
        return headers


class KueueWorkloads:
    """What an informer needs to follow the Workloads of a namespace, by whichever version of its API Kueue
    serves at the time."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._path = ""

    async def list_page(self, collection: str, params: Mapping[str, str]) -> Object:
        if "continue" not in params:
            version = await self._kube.served_version(_KUEUE)
            self._path = f"/apis/{_KUEUE}/{version}/namespaces/{self._kube.namespace}/{collection}"
        return await self._kube.list_page(self._path, params)

    def watch(
        self, _: str, params: Mapping[str, str], *, silence: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._kube.watch(self._path, params, silence=silence)


@asynccontextmanager
async def connect(kubeconfig: str | None, namespace: str) -> AsyncIterator[Kube]:
    """A client for as long as the block lasts. Raise KubeError without credentials."""
    configuration = await load_configuration(kubeconfig)
    connector = aiohttp.TCPConnector(ssl=_tls(configuration))
    async with aiohttp.ClientSession(connector=connector, trust_env=True) as session:
        yield Kube(session, configuration, namespace)


def _of_task(task_id: str) -> dict[str, str]:
    return {"labelSelector": f"{TASK_LABEL}={task_id}"}


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    pending = bytearray()
    async for chunk in content.iter_any():
        pending += chunk
        *complete, rest = pending.split(b"\n")
        for line in complete:
            yield bytes(line)
        pending = rest
        if len(pending) > _EVENT_BYTES:
            raise KubeError(0, "EventTooLarge", f"more than {_EVENT_BYTES} bytes without a line end")
    if pending:
        raise KubeError(0, "Truncated", "the watch ended within an event")


def _refusal(status: int, data: bytes) -> KubeError:
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return KubeError(status, "Error", data[:200].decode("utf-8", "replace"))
    return KubeError(status, document.get("reason") or "Error", document.get("message") or "")


def _document(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise KubeError(0, "NotJson", f"{what}: {data[:200]!r}") from error
    if not isinstance(document, dict):
        raise KubeError(0, "NotJson", f"{what}: {data[:200]!r}")
    return document


def _lease(document: dict[str, Any]) -> dict[str, Any]:
    metadata = document.get("metadata")
    if not isinstance(metadata, dict) or not {"name", "resourceVersion"} <= metadata.keys():
        raise KubeError(0, "NotALease", json.dumps(document)[:200])
    return document
