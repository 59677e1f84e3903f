"""One HTTP request: time limits, proxies, errors. Redirects are not followed here."""

import io
import json
import os
import ssl
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from poiesis_cli import __version__
from poiesis_cli.errors import CliError, NotTes, Unreachable
from poiesis_cli.timing import Timing

_CHECK_URL = "check the URL, and whether the server is running"


@dataclass(frozen=True, kw_only=True)
class Response:
    """A complete response of any status."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Parse the body. Raise NotTes if it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            start = printable(self.body[:80].decode("utf-8", "replace"))
            raise NotTes(
                f"the response is not JSON, it starts with {start!r}",
                "check that the URL leads to a TES server and not to a proxy or a login page",
            ) from None


class NoConnection(Unreachable):
    """No connection was established, so the server has not seen the request."""


@asynccontextmanager
async def open_session(timing: Timing) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session without cookies and .netrc: only `credentials` decides which server gets a secret."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timing.request, connect=timing.connect),
        headers={"User-Agent": f"poiesis-cli/{__version__}", "Accept": "application/json"},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield session


async def send(
    session: aiohttp.ClientSession, method: str, url: URL, *, body: bytes | None = None, **options: Any
) -> Response:
    """Send a request once; `options` are aiohttp's. Raise NoConnection, Unreachable or TlsFailed."""
    where = url.origin()
    if body is not None:
        options["data"] = io.BytesIO(body)  # a stream: contents may make it large
    try:
        async with session.request(
            method, url, allow_redirects=False, proxy=_proxy(url), **options
        ) as response:
            return Response(status=response.status, headers=response.headers, body=await response.read())
    except aiohttp.ClientConnectorCertificateError as error:
        raise TlsFailed(
            f"the certificate of {where} is not trusted: {error.certificate_error}",
            "if a private certificate authority signed it, set SSL_CERT_FILE to the authority's certificate",
        ) from error
    except aiohttp.ClientSSLError as error:
        reason = _tls_reason(error)
        raise TlsFailed(
            f"TLS with {where} failed: {reason}",
            f"if the server uses no TLS: --server {where.with_scheme('http')}",
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise NoConnection(f"cannot connect to {where}: {_reason(error)}", _CHECK_URL) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise NoConnection(f"cannot connect to {where}: timed out", _CHECK_URL) from error
    except TimeoutError as error:
        raise Unreachable(f"{where} did not respond in time") from error
    except aiohttp.ClientError as error:
        # Its own text may contain the URL or headers.
        raise Unreachable(f"the connection to {where} failed ({type(error).__name__})") from error


class TlsFailed(CliError):
    """No TLS connection could be established. A retry would not help."""

    exit = Unreachable.exit


def printable(text: str) -> str:
    """Replace control characters: text from a server must not control the terminal."""
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in text)


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """Return the system's message: asyncio's own text contains addresses. A resolver's codes are negative."""
    code = error.os_error.errno or 0
    return printable(os.strerror(code) if code > 0 else error.os_error.strerror or str(error.os_error))


def _tls_reason(error: aiohttp.ClientSSLError) -> str:
    """Return OpenSSL's reason, for example `wrong version number` from a server without TLS."""
    cause = getattr(error, "os_error", None)
    reason = cause.reason if isinstance(cause, ssl.SSLError) else None
    return printable((reason or type(error).__name__).replace("_", " ").lower())


def _proxy(url: URL) -> str | None:
    """Return the proxy of HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""
    if url.host is None or urllib.request.proxy_bypass(url.host):
        return None
    return urllib.request.getproxies().get(url.scheme)
