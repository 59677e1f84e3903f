"""What has to be done for an input. Pure; standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from poiesis_models.paths import names_all
from poiesis_models.worklist import InputItem
from poiesis_transfer.errors import Permanent
from poiesis_transfer.urls import S3Url, parse_s3, scheme, shown


class Kind(Enum):
    """What lies at an S3 URL, as far as the task says."""

    FILE = "FILE"
    DIRECTORY = "DIRECTORY"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where an input belongs: `local` in the task volume, `path` for executors; `number` in the work list."""

    local: Path
    path: str
    number: int


@dataclass(frozen=True)
class Content:
    """A literal content: a file beside the work list."""

    target: Target
    name: str


@dataclass(frozen=True)
class Page:
    """One file by HTTP or HTTPS."""

    target: Target
    url: str


@dataclass(frozen=True)
class Stored:
    """An object, or all objects below a prefix."""

    target: Target
    url: S3Url
    kind: Kind

    @property
    def decoded(self) -> "Stored | None":
        """The same input if its URL is percent-encoded; None if it cannot be."""
        url = self.url.decoded
        return None if url is None else _stored(self.target, url, self.kind)


Step = Content | Page | Stored


def plan(items: Sequence[InputItem]) -> list[Step]:
    """One step an input, in order. Raise Permanent, before anything is moved, for what cannot be done."""
    return [_step(number, item) for number, item in enumerate(items)]


def relative_path(key: str, prefix: str) -> str:
    """Where the object lies below the directory; raise Permanent if a file cannot have that name."""
    relative = key.removeprefix(prefix)
    if relative and ("\0" in relative or not names_all(relative.removesuffix("/"))):
        raise Permanent(f"the key {key!r} cannot be staged below {prefix!r}: a segment is '', '.' or '..'")
    return relative


_KINDS: Mapping[str | None, Kind] = {"FILE": Kind.FILE, "DIRECTORY": Kind.DIRECTORY, None: Kind.UNKNOWN}


def _step(number: int, item: InputItem) -> Step:
    target = Target(local=Path(item.local), path=item.path, number=number)
    if item.content_file is not None:
        return Content(target, item.content_file)
    url = item.url or ""
    match scheme(url):
        case "http" | "https":
            if item.type == "DIRECTORY":
                raise Permanent(
                    f"input {item.path} is a DIRECTORY, but {shown(url)} is fetched by HTTP, which lists none"
                )
            return Page(target, url)
        case "s3":
            return _stored(target, parse_s3(url), _KINDS[item.type])
        case other:
            raise Permanent(
                f"input {item.path}: {shown(url)} has "
                f"{f'the scheme {other!r}' if other else 'no scheme'}; s3, http and https can be staged"
            )


def _stored(target: Target, url: S3Url, kind: Kind) -> Stored:
    names_directory = not url.key or url.key.endswith("/")
    return Stored(target, url, Kind.DIRECTORY if names_directory else kind)
