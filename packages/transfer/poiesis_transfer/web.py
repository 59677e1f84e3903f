"""HTTP requests: reused connections, a bounded number of concurrent requests, errors as TransferError.

It uses http.client alone, because every task pays for the start of a filer, and because a block of a body
goes from the socket to the file without another copy. Texts of libraries are not repeated where they could
contain URLs, and so signatures.
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
from poiesis_transfer.errors import NotFound, Permanent, Refused, Retryable, TransferError
from poiesis_transfer.retry import Retry

_RETRYABLE_STATUS = {408, 425, 429}
_GONE_STATUS = {404, 410}
_REDIRECTS = {301, 302, 303, 307, 308}
_MAX_REDIRECTS = 10
_SAFE = "/%:@!$&'()*+,;=~-._?[]|\\^`{}\"<>"  # not encoded: a signature may depend on the exact bytes
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
    """Timeouts in seconds. `idle`: without a byte in either direction, and until a response starts."""

    connect: float = 15.0
    idle: float = 60.0


LIMITS = Limits()
RETRY = Retry()


@dataclass(frozen=True)
class Url:
    """The parts of a URL that a request needs. `target` is the path and query as they are sent."""

    scheme: str
    host: str
    port: int
    target: str
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> "Url":
        """Return the parts of a URL, encoded for a request line.

        Raise ValueError if it is not an HTTP URL.
        """
        parts = urlsplit(text)
        scheme = parts.scheme.lower()
        if scheme not in _PORTS or not parts.hostname:
            raise ValueError("not an HTTP URL")
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
        if not all(0 < len(label) < 64 for label in host.rstrip(".").split(".")):  # noqa: PLR2004  # RFC 1035
            raise ValueError("invalid host name")
        target = quote(parts.path or "/", safe=_SAFE) + (
            f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
        )
        return cls(scheme, host, parts.port or _PORTS[scheme], target, _basic(parts.username, parts.password))

    @property
    def origin(self) -> tuple[str, str, int]:
        """Return scheme, host and port, which identify a connection."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Return the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


_PORTS = {"http": 80, "https": 443}


class Body(Protocol):
    """The body of a request. `blocks` is called for each attempt."""

    @property
    def size(self) -> int:
        """Return the number of bytes."""

    def blocks(self) -> Iterable[bytes]:
        """Return the bytes. Raise TransferError if they cannot be read."""


Headers = Mapping[str, str] | http.client.HTTPMessage  # HTTPMessage ignores the case of names
Proxy = Callable[[str, str], str | None]  # scheme and host -> the proxy's URL


def environments_proxy(scheme: str, host: str) -> str | None:
    """Return the proxy by HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in upper or lower case."""
    if not any(name.lower() in {"http_proxy", "https_proxy", "all_proxy"} for name in os.environ):
        return None  # urllib.request is slow to load
    from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

    proxies = getproxies_environment()
    if proxy_bypass_environment(host):
        return None
    return proxies.get(scheme) or proxies.get("all")


@dataclass(kw_only=True)
class Web:
    """An HTTP client, shared by all transfers of a filer: at most `pool.CONCURRENCY` requests at a time.

    `allowed`: the addresses that connections may lead to; None: all, for endpoints that operators configure.
    `trusted`: hosts and ports that are exempt from `allowed`. `slots` limits concurrent requests and can be
    shared.
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
        """Close the idle connections."""
        with self._lock:
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def interrupt(self) -> None:
        """Shut down the connections in use, which ends all waits for them. New connections can be opened."""
        with self._lock:
            for connection in self._busy:
                sock: socket.socket | None = connection.sock
                if sock is not None:
                    _shut(sock)

    @contextmanager
    def request(
        self, method: str, url: Url, what: str, headers: Mapping[str, str], body: Body | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Send one request and return the response with any status. Error messages start with `what`."""
        with self.slots, translated(what):
            pool.check()
            connection, answer = self._exchange(method, url, headers, body)
            try:
                yield answer
            finally:
                self._done(url, connection, answer)

    @contextmanager
    def get(self, url: Url, what: str, headers: Mapping[str, str]) -> Iterator[http.client.HTTPResponse]:
        """Send a GET and follow redirects, whose targets must be allowed too."""
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
        """Send a request and read the head of the response.

        An idle connection that was closed costs no attempt.
        """
        while True:
            connection, fresh = self._connection(url)
            try:
                pool.check()  # an interrupt cannot shut down a socket that is still connecting
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
        """Return the request target and the extra headers; a proxy for plain HTTP needs the whole URL."""
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
        """Check the host that a proxy connects to, as far as this process can resolve its name."""
        if self.allowed is None or (url.host, url.port) in self.trusted:
            return
        if self.allowed.denies_name(url.host):
            raise _NotAllowed
        try:
            found = _addresses(url.host, url.port)
        except socket.gaierror:
            return  # only the proxy can resolve it
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
    """No address of the host accepted the connection."""


class _NotAllowed(Exception):
    """The host has no allowed address."""


def _dialling(allowed: Allowed | None) -> Callable[..., socket.socket]:
    """Return the function that opens connections.

    It connects to the address that it checked, so a name that resolves to another address the next time (DNS
    rebinding) is no way around the check.
    """

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
    """Return whether a server that closed the connection during the body has sent a response."""
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
        return  # already closed


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
    """Return the error for an HTTP status."""
    words = _WORDS.get(status)
    message = f"{what}: {words} (HTTP {status})" if words else f"{what}: HTTP {status}"
    if status in _GONE_STATUS:
        return NotFound(message)
    if status >= 500 or status in _RETRYABLE_STATUS:  # noqa: PLR2004
        return Retryable(message, retry_after=retry_after(headers))
    return Permanent(message)


def retry_after(headers: Headers) -> float | None:
    """Return Retry-After in seconds; the header contains a number or a date."""
    value = (headers.get("retry-after") or headers.get("Retry-After") or "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    date = seconds_of(value)
    return None if date is None else max(0.0, date - time.time())


def seconds_of(date: str | None) -> float | None:
    """Return an HTTP date in seconds since 1970. An invalid date counts as absent: None."""
    try:
        parsed = email.utils.parsedate_tz(date or "")
        return float(email.utils.mktime_tz(parsed)) if parsed else None
    except (ValueError, OverflowError):  # the 99th of January, the year 99999
        return None


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Convert errors of sockets, TLS and http.client to TransferError."""
    try:
        yield
    except _NotAllowed as error:
        raise Refused(
            f"{what}: the host has no public address, or the operator has denied it "
            "(config.storage.http.allow and config.storage.http.deny)"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _converted(what, error) from error
    except UnicodeError as error:  # a host name that is invalid in DNS
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


def _converted(what: str, error: Exception) -> TransferError:
    for kind, ours, words in _CAUSES:
        if isinstance(error, kind):
            reason = _reason(error)
            return ours(f"{what}: {words}" + (f" ({reason})" if reason else ""))
    return Retryable(f"{what}: {type(error).__name__}")


def _reason(error: Exception) -> str:
    """Return the reason that OpenSSL or the system gives, which contains no URL."""
    if isinstance(error, ssl.SSLEOFError | socket.gaierror | TimeoutError):
        return ""
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", None) or error.reason or ""
        return str(reason).replace("_", " ").lower()
    number = getattr(error, "errno", None) or 0
    return os.strerror(number).lower() if number > 0 else ""
