"""Shared volumes: file systems of the operator's that file:// URLs and bare absolute paths name. Pure.

One is seen by its filer at `paths.SHARED` + prefix, so what lies there looks as it does to users. Standard
library only.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from urllib.parse import unquote, urlsplit

from poiesis_models.paths import names_all


class NotAFileUrl(ValueError):
    """The URL names no absolute path; says why."""


class MalformedShared(ValueError):
    """The text is not a list of shared volumes."""


@dataclass(frozen=True, kw_only=True)
class SharedVolume:
    """What lies below `prefix`, an absolute path without a trailing slash, may be read, or written too."""

    prefix: str
    writable: bool = False


def to_json(volumes: Iterable[SharedVolume]) -> str:
    """The value of POIESIS_SHARED (filer contract v1)."""
    return json.dumps([asdict(volume) for volume in volumes], separators=(",", ":"))


def from_json(text: str) -> tuple[SharedVolume, ...]:
    """Raise MalformedShared."""
    try:
        return tuple(
            SharedVolume(prefix=str(one["prefix"]), writable=one["writable"] is True)
            for one in json.loads(text)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedShared(f"not a list of shared volumes: {error!r}") from error


def file_path(url: str) -> str:
    """`/a/b c` of `file:///a/b%20c` and of the bare path `/a/b c`, which stands for itself.

    Without trailing slashes. Raise NotAFileUrl for another host, a query, and forbidden names.
    """
    path = url if url.startswith("/") else _decoded(url)
    first, *names = path.rstrip("/").split("/")
    if first or not names_all("/".join(names)):
        raise NotAFileUrl("it has to be an absolute path without empty segments, '.' and '..'")
    if "\0" in path:
        raise NotAFileUrl("a path holds no NUL")
    return "/".join([first, *names])


def volume_of(path: str, volumes: Sequence[SharedVolume]) -> SharedVolume | None:
    """The one that holds a path of `file_path`."""
    return next((volume for volume in volumes if f"{path}/".startswith(f"{volume.prefix}/")), None)


def _decoded(url: str) -> str:
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
    except ValueError as error:
        raise NotAFileUrl("it cannot be read") from error
    if parts.scheme != "file" or parts.netloc.lower() not in {"", "localhost"}:
        raise NotAFileUrl("write file:///path, without a host")
    if parts.query or parts.fragment:
        raise NotAFileUrl("write '?' as %3F and '#' as %23")
    return path
