"""URLs of servers. Pure."""

from ipaddress import ip_address

from yarl import URL

from poiesis_cli.errors import BadUsage

TES_PATH = "/ga4gh/tes/v1"
_USAGE_PATH = "/poiesis/v1/usage"
_VERSIONED = ("/v1", "/v1.0", "/v1.1")
_BELOW_THE_BASE = ("/service-info", "/tasks")


def tes_base(text: str) -> URL:
    """Return the base URL of the TES API from a user's URL, which may lack `/ga4gh/tes/v1`.

    A path that ends with a version is used unchanged. Raise BadUsage.
    """
    url = web_url(text, "server")
    path = url.path.rstrip("/")
    for suffix in _BELOW_THE_BASE:
        path = path.removesuffix(suffix)
    if path.endswith("/ga4gh/tes"):
        path += "/v1"
    elif not path.endswith(_VERSIONED):
        path += TES_PATH
    return url.with_path(path)


def usage_url(base: URL) -> URL:
    """Return the URL of Poiesis' reports of usage, which is next to the TES API."""
    return base.with_path(base.path.removesuffix(TES_PATH) + _USAGE_PATH)


def web_url(text: str, what: str) -> URL:
    """Parse an absolute http or https URL without credentials, query or fragment.

    Raise BadUsage with `what` in the message.
    """
    try:
        url = URL(text.strip())
        known = url.scheme in {"http", "https"} and bool(url.host) and url.port is not None
    except ValueError:
        known = False
    if not known:
        raise BadUsage(
            f"{what} must be an http or https URL, got {_without_user(text)!r}",
            "for example https://tes.example.org or http://localhost:8080",
        )
    if url.user is not None or url.password is not None:
        raise BadUsage(
            f"{what} must not contain a user or a password",
            "set POIESIS_USER and POIESIS_PASSWORD, or user and password_file in the configuration",
        )
    if url.query_string or url.fragment:
        raise BadUsage(f"{what} must not have a query or fragment, got {text!r}")
    return url


def unencrypted(url: URL) -> bool:
    """Return whether a request to `url` leaves this machine without TLS (RFC 6750 section 5.3)."""
    if url.scheme == "https":
        return False
    host = url.host or ""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost" and not host.endswith(".localhost")


def _without_user(text: str) -> str:
    return text.rpartition("@")[2]
