"""Requests and watches of one API server, as plain JSON over a pool of connections."""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
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
_KEEPALIVE_SECONDS = 60.0  # of an idle connection; the API server closes it after 90 s
_CONNECTION_LOST = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How the API server answered a request, not a watch.

    `seconds`: until the complete response. `status`: None without a usable response. `retry_after`: seconds.
    """

    seconds: float
    status: int | None
    retry_after: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Response:
    status: int
    text: bytes
    retry_after: float | None


class Client:
    """One API server. Requests raise Refused or Unreachable. `observe` is called with every answer."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        configuration: Configuration,
        *,
        request_seconds: float = REQUEST_SECONDS,
        observe: Callable[[Answer], None] | None = None,
    ) -> None:
        self._session = session
        self._observe = observe
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
        started = time.monotonic()
        try:
            try:
                response = await self._send(method, path, params, data)
            except _CONNECTION_LOST:
                response = await self._send(method, path, params, data)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._answered(started, None)
            raise Unreachable(f"{what}: {_described(error)}") from error
        self._answered(started, response)
        if response.status >= _HTTP_ERRORS:
            raise refused(response.status, response.text, response.retry_after)
        document = _document(response.text)
        if document is None:
            raise Unreachable(f"{what}: the response is not a JSON object: {response.text[:200]!r}")
        return document

    def _answered(self, started: float, response: _Response | None) -> None:
        if self._observe is not None:
            seconds = time.monotonic() - started
            status = None if response is None else response.status
            retry_after = None if response is None else response.retry_after
            self._observe(Answer(seconds=seconds, status=status, retry_after=retry_after))

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

    async def _send(self, method: str, path: str, params: Mapping[str, str], data: bytes | None) -> _Response:
        async with self._session.request(
            method,
            self._base + path,
            params=params,
            headers=await self._headers(method, body=data is not None),
            data=data,
            timeout=self._timeout,
            **self._options,
        ) as response:
            return _Response(
                status=response.status,
                text=await response.read(),
                retry_after=_seconds(response.headers.get("Retry-After")),
            )

    async def _headers(self, method: str, *, body: bool) -> dict[str, str]:
        headers = {"Accept": _JSON, "User-Agent": "poiesis"}
        if body:
            headers["Content-Type"] = _MERGE_PATCH if method == "PATCH" else _JSON
        token = await authorization(self._configuration)
        return headers if token is None else {**headers, "Authorization": token}


@asynccontextmanager
async def connect(
    kubeconfig: str | None = None,
    *,
    request_seconds: float = REQUEST_SECONDS,
    observe: Callable[[Answer], None] | None = None,
) -> AsyncIterator[Client]:
    """Open a client for as long as the block lasts. Raise Unreachable if there are no credentials."""
    configuration = await load_configuration(kubeconfig)
    connector = aiohttp.TCPConnector(ssl=tls_context(configuration), keepalive_timeout=_KEEPALIVE_SECONDS)
    async with aiohttp.ClientSession(connector=connector, trust_env=True) as session:
        yield Client(session, configuration, request_seconds=request_seconds, observe=observe)


def refused(status: int, text: bytes, retry_after: float | None = None) -> Refused:
    """Return the error of a response. A proxy or webhook in between may respond with anything."""
    document = _document(text) or {"message": text[:_MESSAGE_BYTES].decode("utf-8", "replace")}
    reason, message = str(document.get("reason") or "Unknown"), str(document.get("message") or "")
    return Refused(status, reason, message, retry_after)


def _seconds(header: str | None) -> float | None:
    """Parse a Retry-After in seconds (RFC 9110, 10.2.3); the API server sends no dates."""
    return float(header) if header is not None and header.isascii() and header.isdigit() else None


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
