"""Objects at HTTP(S) URLs, signed URLs among them, as sources for `fetch`."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from http.client import HTTPResponse

from poiesis_transfer import checksums, fetch
from poiesis_transfer.errors import Permanent, TransferError
from poiesis_transfer.urls import shown
from poiesis_transfer.web import Url, Web, seconds_of, status_error


class HttpObject:
    """The object at one URL. Raise Permanent if the URL is invalid."""

    def __init__(self, web: Web, url: str) -> None:
        self.what = f"cannot fetch {shown(url)}"
        self._web = web
        try:
            self._url = Url.parse(url)
        except ValueError as error:
            raise Permanent(f"{self.what}: not a valid URL") from error

    def get(self, headers: Mapping[str, str]) -> AbstractContextManager[HTTPResponse]:
        """Send one GET. Redirects are followed, for each part of the object again."""
        return self._web.get(self._url, self.what, headers)

    def failure(self, response: HTTPResponse) -> TransferError:
        """Return the error for a status that is not a success."""
        return status_error(self.what, response.status, response.headers)

    def version(self, response: HTTPResponse) -> fetch.Version:
        """Return the version that a response describes.

        Ranges are requested with If-Range. A server that ignores it is noticed by its response.
        """
        tag = response.headers.get("etag")
        date = response.headers.get("last-modified")
        strong = tag if tag and not tag.startswith("W/") else None
        ranges = response.headers.get("accept-ranges", "").lower() == "bytes" and response.length is not None
        validator = strong or (None if tag else date)
        return fetch.Version(
            size=response.length,
            tag=tag or date,
            condition={"if-range": validator} if ranges and validator else None,
            expected=checksums.expected({name.lower(): value for name, value in response.headers.items()}),
            modified=modified(response),
        )


def modified(response: HTTPResponse) -> float | None:
    """Return Last-Modified in seconds since 1970."""
    return seconds_of(response.headers.get("last-modified"))


def fetch_url(web: Web, url: str, sink: fetch.Sink) -> None:
    """Write the object at a URL to `sink`. Raise TransferError."""
    fetch.fetch(HttpObject(web, url), sink, web.retry)
