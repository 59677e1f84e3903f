"""Shared volumes: file systems of the operator, addressed by file:// URLs and absolute paths. Pure.

A filer mounts a volume at `paths.SHARED` + prefix, so paths below the prefix are those of the users. Standard
library only.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from urllib.parse import unquote, urlsplit

from poiesis_models.paths import names_all


class NotAFileUrl(ValueError):
    """The URL does not name an absolute path; the message is the reason."""


class MalformedShared(ValueError):
    """The text is not a list of shared volumes."""


@dataclass(frozen=True, kw_only=True)
class SharedVolume:
    """A volume. `prefix`: absolute path without a trailing slash."""

    prefix: str
    writable: bool = False


def to_json(volumes: Iterable[SharedVolume]) -> str:
    """Return the value of POIESIS_SHARED (filer contract v1)."""
    return json.dumps([asdict(volume) for volume in volumes], separators=(",", ":"))


def from_json(text: str) -> tuple[SharedVolume, ...]:
    """Parse POIESIS_SHARED. Raise MalformedShared."""
    try:
        return tuple(
            SharedVolume(prefix=str(one["prefix"]), writable=one["writable"] is True)
            for one in json.loads(text)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedShared(f"not a list of shared volumes: {error!r}") from error


def file_path(url: str) -> str:
    """Return the path of a file URL, or an absolute path unchanged: `file:///a/b%20c` -> `/a/b c`.

    Trailing slashes are removed. Raise NotAFileUrl for a host, a query, and forbidden names.
    """
    path = url if url.startswith("/") else _decoded(url)
    first, *names = path.rstrip("/").split("/")
    if first or not names_all("/".join(names)):
        raise NotAFileUrl("the path must be absolute, without empty, '.' or '..' segments")
    if "\0" in path:
        raise NotAFileUrl("the path must not contain NUL")
    return "/".join([first, *names])


def volume_of(path: str, volumes: Sequence[SharedVolume]) -> SharedVolume | None:
    """Return the volume that contains a path returned by `file_path`, or None."""
    return next((volume for volume in volumes if f"{path}/".startswith(f"{volume.prefix}/")), None)


def _decoded(url: str) -> str:
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
    except ValueError as error:
        raise NotAFileUrl("the URL is malformed") from error
    if parts.scheme != "file" or parts.netloc.lower() not in {"", "localhost"}:
        raise NotAFileUrl("the form is file:///path, without a host")
    if parts.query or parts.fragment:
        raise NotAFileUrl("'?' must be written as %3F and '#' as %23")
    return path
