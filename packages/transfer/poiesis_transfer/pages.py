"""Inputs by plain HTTP(S), signed URLs among them, as `fetch` takes them."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from http.client import HTTPResponse

from poiesis_transfer import checksums, fetch
from poiesis_transfer.errors import Permanent, TransferError
from poiesis_transfer.urls import shown
from poiesis_transfer.web import Url, Web, seconds_of, status_error


class Page:
    """One URL. Raise Permanent if it is none."""

    def __init__(self, web: Web, url: str) -> None:
        self.what = f"cannot fetch {shown(url)}"
        self._web = web
        try:
            self._url = Url.parse(url)
        except ValueError as error:
            raise Permanent(f"{self.what}: it is not a valid URL") from error

    def get(self, headers: Mapping[str, str]) -> AbstractContextManager[HTTPResponse]:
        """Redirects are followed, again for each part."""
        return self._web.get(self._url, self.what, headers)

    def failure(self, answer: HTTPResponse) -> TransferError:
        """By its status."""
        return status_error(self.what, answer.status, answer.headers)

    def version(self, answer: HTTPResponse) -> fetch.Version:
        """Ranges hold by If-Range, which servers that know no conditions ignore: their answer then tells."""
        tag = answer.headers.get("etag")
        date = answer.headers.get("last-modified")
        strong = tag if tag and not tag.startswith("W/") else None
        ranges = answer.headers.get("accept-ranges", "").lower() == "bytes" and answer.length is not None
        validator = strong or (None if tag else date)
        return fetch.Version(
            size=answer.length,
            tag=tag or date,
            condition={"if-range": validator} if ranges and validator else None,
            expected=checksums.expected({name.lower(): value for name, value in answer.headers.items()}),
            modified=modified(answer),
        )


def modified(answer: HTTPResponse) -> float | None:
    """Last-Modified in seconds since 1970."""
    return seconds_of(answer.headers.get("last-modified"))


def fetch_page(web: Web, url: str, landing: fetch.Sink) -> None:
    """GET a page into a file."""
    fetch.fetch(Page(web, url), landing, web.retry)
