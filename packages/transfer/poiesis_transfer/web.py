"""Requests over HTTP: connections that are used again, a bounded number at once, failures in our words.

On http.client alone, because a filer's start is paid for by every task and a block of a body goes from the
socket to the file without another copy. What libraries say of a failure is not repeated where their texts
could hold URLs and so signatures.
"""

import base64
import email.utils
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, unquote, urljoin, urlsplit

from poiesis_transfer import pool
from poiesis_transfer.addresses import Allowed
from poiesis_transfer.errors import NotFound, Retryable, Permanent, Refused, TransferError
from poiesis_transfer.retry import Retry

_RETRYABLE_STATUS = {408, 425, 429}
_GONE_STATUS = {404, 410}
_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 10
_SAFE = "/%:@!$&'()*+,;=~-._?[]|\\^`{}\"<>"  # left as they are: a signature may depend on the exact bytes
_WORDS = {
    400: "the server rejected the request",
    401: "the server requires credentials",
    403: "access denied",
    404: "not found",
    410: "gone",
    429: "too many requests",
    503: "the server is unavailable",
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds. `idle`: without a byte in either direction, and for a server to begin its answer."""

    connect: float = 15.0
    idle: float = 60.0


LIMITS = Limits()
RETRY = Retry()


@dataclass(frozen=True)
class Url:
    """What a request needs of a URL. `target` is the path and query, as they are sent."""

    scheme: str
    host: str
    port: int
    target: str
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> "Url":
        """Raise ValueError for what is no HTTP URL. What may not stand in a request line is encoded."""
        parts = urlsplit(text)
        scheme = parts.scheme.lower()
        if scheme not in _PORTS or not parts.hostname:
            raise ValueError("not an HTTP URL")
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
        if not all(0 < len(label) < 64 for label in host.rstrip(".").split(".")):  # noqa: PLR2004  # RFC 1035
            raise ValueError("a host that DNS cannot have")
        target = quote(parts.path or "/", safe=_SAFE) + (
            f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
        )
        return cls(scheme, host, parts.port or _PORTS[scheme], target, _basic(parts.username, parts.password))

    @property
    def origin(self) -> tuple[str, str, int]:
        """What a connection leads to."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


_PORTS = {"http": 80, "https": 443}


class Body(Protocol):
    """What a request carries; asked again when it is sent again."""

    @property
    def size(self) -> int:
        """Bytes."""

    def blocks(self) -> Iterable[bytes]:
        """All of them. Raise TransferError if they cannot be read."""


Headers = Mapping[str, str] | http.client.HTTPMessage  # the latter has names in any case
Proxy = Callable[[str, str], str | None]  # scheme and host -> the proxy's URL


def environments_proxy(scheme: str, host: str) -> str | None:
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in either case."""
    if not any(name.lower() in {"http_proxy", "https_proxy", "all_proxy"} for name in os.environ):
        return None  # urllib.request is slow to load
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    proxies = getproxies_environment()
    if proxy_bypass_environment(host):
        return None
    return proxies.get(scheme) or proxies.get("all")


@dataclass(kw_only=True)
class Web:
    """Shared by all transfers of a filer: at most `pool.CONCURRENCY` requests at any time.

    `allowed`: where connections may lead; None: anywhere, for what operators configure. `trusted`: hosts and
    ports, which are not asked. `slots`: for requests; others may share them.
    """

    limits: Limits = LIMITS
    retry: Retry = RETRY
    allowed: Allowed | None = None
    trusted: frozenset[tuple[str, int]] = frozenset()
    tls: ssl.SSLContext | None = None
    proxy: Proxy = environments_proxy
    slots: threading.BoundedSemaphore = field(default_factory=pool.slots)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _idle: dict[tuple[str, str, int], list[http.client.HTTPConnection]] = field(default_factory=dict)
    _proxies: dict[tuple[str, str], str | None] = field(default_factory=dict)
    _busy: set[http.client.HTTPConnection] = field(default_factory=set)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def interrupt(self) -> None:
        """Break the connections in use, so that nobody waits for them any more. New ones can be made."""
        with self._lock:
            for connection in self._busy:
                sock: socket.socket | None = connection.sock
                if sock is not None:
                    _shut(sock)

    @contextmanager
    def request(
        self, method: str, url: Url, what: str, headers: Mapping[str, str], body: Body | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """One request, whatever its status. `what` begins the message of a failure."""
        with self.slots, translated(what):
            pool.check()
            connection, answer = self._exchange(method, url, headers, body)
            try:
                yield answer
            finally:
                self._done(url, connection, answer)

    @contextmanager
    def get(self, url: Url, what: str, headers: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
        """GET, redirects followed; each place they lead to has to be allowed."""
        for _ in range(_MAX_REDIRECTS + 1):
            sent = {"accept-encoding": "identity", "user-agent": "poiesis", **headers}
            if url.authorization:
                sent["authorization"] = url.authorization
            with self.request("GET", url, what, sent) as answer:
                place = answer.headers.get("location")
                if answer.status not in _REDIRECTS or not place:
                    yield answer
                    return
                url = _redirected(url, place, what)
        raise Permanent(f"{what}: more than {_MAX_REDIRECTS} redirects")

    def _exchange(
        self, method: str, url: Url, headers: Mapping[str, str], body: Body | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send and read the answer's head. A kept connection that has ended meanwhile costs no attempt."""
        while True:
            connection, fresh = self._connection(url)
            try:
                pool.check()  # an interrupt finds no socket to break while it is connected
                target, sent = self._line(url)
                _send(connection, (method, target), {"host": url.authority, **headers, **sent}, body)
                return connection, connection.getresponse()
            except (http.client.RemoteDisconnected, ConnectionError):
                self._drop(connection)
                pool.check()
                if fresh:
                    raise
            except BaseException:
                self._drop(connection)
                raise

    def _connection(self, url: Url) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            kept = self._idle.get(url.origin)
            if kept:
                connection = kept.pop()
                self._busy.add(connection)
                return connection, False
        connection = self._new(url)
        with self._lock:
            self._busy.add(connection)
        try:
            connection.connect()
            if connection.sock is not None:
                connection.sock.settimeout(self.limits.idle)
        except BaseException:
            self._drop(connection)
            raise
        return connection, True

    def _new(self, url: Url) -> http.client.HTTPConnection:
        proxy = self._proxy(url)
        place = _proxy_url(proxy) if proxy else url
        connection: http.client.HTTPConnection
        if url.scheme == "https":
            context = self._context()
            connection = http.client.HTTPSConnection(
                place.host, place.port, timeout=self.limits.connect, context=context
            )
        else:
            connection = http.client.HTTPConnection(place.host, place.port, timeout=self.limits.connect)
        if proxy:
            self._check_beyond_proxy(url)
            if url.scheme == "https":
                authorization = {"Proxy-Authorization": place.authorization} if place.authorization else {}
                connection.set_tunnel(url.host, url.port, headers=authorization)
            dial = _dialling(None)
        else:
            free = self.allowed is None or (url.host, url.port) in self.trusted
            dial = _dialling(None if free else self.allowed)
        connection._create_connection = dial  # type: ignore[attr-defined]  # noqa: SLF001  # its own hook
        return connection

    def _line(self, url: Url) -> tuple[str, dict[str, str]]:
        """For a proxy that gets a request in the clear: where it goes, and who asks."""
        proxy = self._proxy(url) if url.scheme == "http" else None
        if proxy is None:
            return url.target, {}
        authorization = _proxy_url(proxy).authorization
        sent = {"proxy-authorization": authorization} if authorization else {}
        return f"http://{url.authority}{url.target}", sent

    def _proxy(self, url: Url) -> str | None:
        place = url.scheme, url.host
        if place not in self._proxies:
            self._proxies[place] = self.proxy(*place)
        return self._proxies[place]

    def _check_beyond_proxy(self, url: Url) -> None:
        """The proxy connects, so it has the last word; what we can resolve ourselves is checked."""
        if self.allowed is None or (url.host, url.port) in self.trusted:
            return
        if self.allowed.denies_name(url.host):
            raise _NotAllowed
        try:
            found = _addresses(url.host, url.port)
        except socket.gaierror:
            return  # only the proxy knows it
        if not any(self.allowed.reaches(url.host, str(place[0])) for *_, place in found):
            raise _NotAllowed

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self.tls is None:
                self.tls = ssl.create_default_context()
            return self.tls

    def _done(
        self, url: Url, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse
    ) -> None:
        if answer.isclosed() and not answer.will_close and connection.sock is not None:
            with self._lock:
                self._busy.discard(connection)
                self._idle.setdefault(url.origin, []).append(connection)
            return
        answer.close()
        self._drop(connection)

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()


def _proxy_url(proxy: str) -> Url:
    return Url.parse(proxy if "://" in proxy else f"http://{proxy}")


class _NotConnected(OSError):
    """No address of the host took the connection."""


class _NotAllowed(Exception):
    """The host has no address that connections may lead to."""


def _dialling(allowed: Allowed | None) -> Callable[..., socket.socket]:
    """How connections are made: the address that was checked is the one that is connected to, so that a name
    that resolves to another one the next moment (DNS rebinding) gains nothing."""

    def dial(place: tuple[str, int], timeout: float, source: object = None) -> socket.socket:
        del source
        host, port = place
        last: OSError | None = None
        for family, kind, protocol, _, address in _addresses(host, port):
            if allowed is not None and not allowed.reaches(host, str(address[0])):
                continue
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(timeout)
                sock.connect(address)
            except OSError as error:
                sock.close()
                last = error
            else:
                return sock
        if last is None:
            raise _NotAllowed
        if isinstance(last, TimeoutError):
            raise last
        raise _NotConnected(last.errno, last.strerror) from last

    return dial


def _addresses(
    host: str, port: int
) -> list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str | int, ...]]]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[return-value]  # no bytes


def _send(
    connection: http.client.HTTPConnection,
    request: tuple[str, str],
    headers: Mapping[str, str],
    body: Body | None,
) -> None:
    connection.putrequest(*request, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body is None:
        connection.endheaders()
        return
    connection.putheader("content-length", str(body.size))
    connection.endheaders()
    try:
        for block in body.blocks():
            pool.check()
            connection.send(block)
    except ConnectionError:
        if not _answers(connection):
            raise


def _answers(connection: http.client.HTTPConnection) -> bool:
    """Whether a server that did not take the whole body says why."""
    sock: socket.socket | None = connection.sock
    try:
        return (
            sock is not None and not isinstance(sock, ssl.SSLSocket) and bool(sock.recv(1, socket.MSG_PEEK))
        )
    except OSError:
        return False


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended by itself


def _redirected(url: Url, place: str, what: str) -> Url:
    base = f"{url.scheme}://{url.authority}{url.target}"
    try:
        found = Url.parse(urljoin(base, place))
    except ValueError as error:
        raise Permanent(f"{what}: the URL or its redirect target is not a valid HTTP URL") from error
    if found.origin == url.origin and found.authorization is None:
        return Url(found.scheme, found.host, found.port, found.target, url.authorization)
    return found


def _basic(user: str | None, password: str | None) -> str | None:
    if user is None:
        return None
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def status_error(what: str, status: int, headers: Headers) -> TransferError:
    """What an HTTP status means for a transfer."""
    words = _WORDS.get(status)
    message = f"{what}: {words} (HTTP {status})" if words else f"{what}: HTTP {status}"
    if status in _GONE_STATUS:
        return NotFound(message)
    if status >= 500 or status in _RETRYABLE_STATUS:  # noqa: PLR2004
        return Retryable(message, retry_after=retry_after(headers))
    return Permanent(message)


def retry_after(headers: Headers) -> float | None:
    """Seconds; the header has a number or a date."""
    value = (headers.get("retry-after") or headers.get("Retry-After") or "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    date = seconds_of(value)
    return None if date is None else max(0.0, date - time.time())


def seconds_of(date: str | None) -> float | None:
    """An HTTP date in seconds since 1970; None for what is no date, which is as if it had not been sent."""
    try:
        parsed = email.utils.parsedate_tz(date or "")
        return float(email.utils.mktime_tz(parsed)) if parsed else None
    except (ValueError, OverflowError):  # the 99th of January, the year 99999
        return None


@contextmanager
def translated(what: str) -> Iterator[None]:
    """The failures of sockets, of TLS and of http.client become ours."""
    try:
        yield
    except _NotAllowed as error:
        raise Refused(
            f"{what}: the host has no public address, or the operator has denied it "
            "(storage.http.allow and storage.http.deny)"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _ours(what, error) from error
    except UnicodeError as error:  # a host's name that DNS cannot have
        raise Permanent(f"{what}: not a valid URL") from error


_CAUSES: tuple[tuple[type[Exception], type[Permanent] | type[Retryable], str], ...] = (
    (http.client.InvalidURL, Permanent, "the URL or its redirect target is not a valid HTTP URL"),
    (ssl.SSLEOFError, Retryable, "the server closed the connection"),
    (ssl.SSLError, Permanent, "TLS: the server's certificate or protocol was rejected"),
    (socket.gaierror, Retryable, "the host name does not resolve"),
    (_NotConnected, Retryable, "cannot connect"),
    (http.client.RemoteDisconnected, Retryable, "the server closed the connection"),
    (TimeoutError, Retryable, "no response in time"),
    (http.client.IncompleteRead, Retryable, "the connection closed before the whole body arrived"),
    (OSError, Retryable, "the connection was lost"),
    (http.client.HTTPException, Retryable, "the response is not valid HTTP"),
)


def _ours(what: str, error: Exception) -> TransferError:
    for kind, ours, words in _CAUSES:
        if isinstance(error, kind):
            said = _said(error)
            return ours(f"{what}: {words}" + (f" ({said})" if said else ""))
    return Retryable(f"{what}: {type(error).__name__}")


def _said(error: Exception) -> str:
    """OpenSSL's or the system's own words, which hold no URL."""
    if isinstance(error, ssl.SSLEOFError | socket.gaierror | TimeoutError):
        return ""
    if isinstance(error, ssl.SSLError):
        said = getattr(error, "verify_message", None) or error.reason or ""
        return str(said).replace("_", " ").lower()
    number = getattr(error, "errno", None) or 0
    return os.strerror(number).lower() if number > 0 else ""
