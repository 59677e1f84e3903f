"""One HTTP request: time limits, proxies, failures in our words. No redirect is followed here."""

import io
import json
import os
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

_REACH = "is the URL right, and does the server run?"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back, whatever the status."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Raise NotTes if the body is no JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            start = printable(self.body[:80].decode("utf-8", "replace"))
            raise NotTes(
                f"the server's answer is not JSON: it begins with {start!r}",
                "does the URL lead to a TES server? A proxy or a login page may answer instead",
            ) from None


class NoConnection(Unreachable):
    """None could be made, so the server has not seen the request."""


@asynccontextmanager
async def open_session(timing: Timing) -> AsyncIterator[aiohttp.ClientSession]:
    """No cookies, no .netrc: whom credentials are sent to is decided in one place, and not here."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timing.request, connect=timing.connect),
        headers={"User-Agent": f"poiesis-cli/{__version__}", "Accept": "application/json"},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield session


async def send(
    session: aiohttp.ClientSession, method: str, url: URL, *, body: bytes | None = None, **options: Any
) -> Answer:
    """One try. Raise NoConnection or Unreachable; `options` are aiohttp's."""
    where = url.origin()
    if body is not None:
        options["data"] = io.BytesIO(body)  # a stream: contents may make it large
    try:
        async with session.request(
            method, url, allow_redirects=False, proxy=_proxy(url), **options
        ) as response:
            return Answer(status=response.status, headers=response.headers, body=await response.read())
    except aiohttp.ClientConnectorCertificateError as error:
        raise _Untrusted(
            f"{where}: its certificate is not trusted: {error.certificate_error}",
            "if it is signed by your site's own authority, set SSL_CERT_FILE to that certificate",
        ) from error
    except aiohttp.ClientConnectorError as error:
        raise NoConnection(f"{where} cannot be reached: {_reason(error)}", _REACH) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise NoConnection(f"{where} cannot be reached: no connection in time", _REACH) from error
    except TimeoutError as error:
        raise Unreachable(f"{where} did not answer in time") from error
    except aiohttp.ClientError as error:
        # Its own text may hold the URL or headers.
        raise Unreachable(f"{where}: the connection failed ({type(error).__name__})") from error


class _Untrusted(CliError):
    """Trying again would not help."""

    exit = Unreachable.exit


def printable(text: str) -> str:
    """Without control characters, which could write to a terminal what nobody sent."""
    return "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in text)


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """The system's word for it: asyncio's own texts name addresses. A resolver's codes are negative."""
    code = error.os_error.errno or 0
    return printable(os.strerror(code) if code > 0 else error.os_error.strerror or str(error.os_error))


def _proxy(url: URL) -> str | None:
    """HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as every program reads them."""
    if url.host is None or urllib.request.proxy_bypass(url.host):
        return None
    return urllib.request.getproxies().get(url.scheme)
