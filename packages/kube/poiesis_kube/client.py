"""Requests and watches of one API server, as plain JSON over a pool of connections."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import aiohttp
from kubernetes.aio.client import Configuration

from poiesis_kube.credentials import authorization, load_configuration, tls_context
from poiesis_kube.errors import Refused, Unreachable

Object = Mapping[str, Any]

REQUEST_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_EVENT_BYTES = 8 * 1024 * 1024  # an object takes at most 1.5 MiB in etcd; JSON is larger than protobuf
_MESSAGE_BYTES = 1000  # of a response that is not a Status
_HTTP_OK = 200
_HTTP_ERRORS = 400
_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_NO_PARAMS: Mapping[str, str] = MappingProxyType({})
_CONNECTION_LOST = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


class Client:
    """One API server. Requests raise Refused or Unreachable."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        configuration: Configuration,
        *,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        self._session = session
        self._configuration = configuration
        self._base = str(configuration.host).rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=request_seconds, sock_connect=_CONNECT_SECONDS)
        self._options = _connection_options(configuration)

    async def request(
        self, method: str, path: str, *, params: Mapping[str, str] = _NO_PARAMS, body: Object | None = None
    ) -> dict[str, Any]:
        """Return the response's document. A PATCH is a JSON merge patch (RFC 7396).

        A request is sent a second time if its connection breaks: the server may have closed a pooled one.
        """
        what = f"{method} {path}"
        data = None if body is None else json.dumps(body).encode()
        try:
            try:
                status, text = await self._send(method, path, params, data)
            except _CONNECTION_LOST:
                status, text = await self._send(method, path, params, data)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{what}: {_described(error)}") from error
        if status >= _HTTP_ERRORS:
            raise refused(status, text)
        document = _document(text)
        if document is None:
            raise Unreachable(f"{what}: the response is not a JSON object: {text[:200]!r}")
        return document

    @asynccontextmanager
    async def watch(
        self, path: str, params: Mapping[str, str], *, silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the lines of a watch, each complete.

        Raise Refused or Unreachable for a watch that breaks off, TimeoutError after `silence` seconds
        without a byte.
        """
        try:
            async with self._session.get(
                self._base + path,
                params={**params, "watch": "1"},
                headers=await self._headers("GET", body=False),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence),
                **self._options,
            ) as response:
                if response.status != _HTTP_OK:
                    raise refused(response.status, await response.read())
                yield _lines(response.content)
        except aiohttp.SocketTimeoutError as error:
            raise TimeoutError(f"no byte for {silence} s") from error
        except aiohttp.ClientError as error:
            raise Unreachable(f"watch {path}: {_described(error)}") from error

    async def _send(
        self, method: str, path: str, params: Mapping[str, str], data: bytes | None
    ) -> tuple[int, bytes]:
        async with self._session.request(
            method,
            self._base + path,
            params=params,
            headers=await self._headers(method, body=data is not None),
            data=data,
            timeout=self._timeout,
            **self._options,
        ) as response:
            return response.status, await response.read()

    async def _headers(self, method: str, *, body: bool) -> dict[str, str]:
        headers = {"Accept": _JSON, "User-Agent": "poiesis"}
        if body:
            headers["Content-Type"] = _MERGE_PATCH if method == "PATCH" else _JSON
        token = await authorization(self._configuration)
        return headers if token is None else {**headers, "Authorization": token}


@asynccontextmanager
async def connect(
    kubeconfig: str | None = None, *, request_seconds: float = REQUEST_SECONDS
) -> AsyncIterator[Client]:
    """Open a client for as long as the block lasts. Raise Unreachable if there are no credentials."""
    configuration = await load_configuration(kubeconfig)
    connector = aiohttp.TCPConnector(ssl=tls_context(configuration))
    async with aiohttp.ClientSession(connector=connector, trust_env=True) as session:
        yield Client(session, configuration, request_seconds=request_seconds)


def refused(status: int, text: bytes) -> Refused:
    """Return the error of a response. A proxy or webhook in between may respond with anything."""
    document = _document(text) or {"message": text[:_MESSAGE_BYTES].decode("utf-8", "replace")}
    return Refused(status, str(document.get("reason") or "Unknown"), str(document.get("message") or ""))


def _connection_options(configuration: Configuration) -> dict[str, Any]:
    """Return what a kubeconfig sets for each connection: tls-server-name and proxy-url."""
    options = {
        "server_hostname": configuration.tls_server_name,
        "proxy": configuration.proxy,
        "proxy_headers": configuration.proxy_headers,
    }
    return {name: value for name, value in options.items() if value}


def _document(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object, None if it is something else."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    pending = bytearray()
    async for chunk in content.iter_any():
        pending += chunk
        *complete, rest = pending.split(b"\n")
        for line in complete:
            yield bytes(line)
        pending = rest
        if len(pending) > _EVENT_BYTES:
            raise Unreachable(f"a watch event exceeds {_EVENT_BYTES} bytes")
    if pending:
        raise Unreachable("the watch ended within an event")
