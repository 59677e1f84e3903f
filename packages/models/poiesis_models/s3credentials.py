"""Which credentials are for which S3 URLs, and how filers are told (filer contract v1). No secrets.

Both sides decide by the same rule: of the URLs that an object's own begins with, the longest, by whole
segments of the path. Pure; standard library only, for a filer's start is paid for by every task.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, Protocol, TypeVar


class ForUrls(Protocol):
    """Whatever is for some S3 URLs: buckets, or prefixes of their keys."""

    @property
    def urls(self) -> Sequence[str]:
        """`s3://bucket` or `s3://bucket/key/of/a/prefix`; a slash at the end says nothing."""


_Entry = TypeVar("_Entry", bound=ForUrls)


class MalformedCredentials(ValueError):
    """The text is no list of credentials."""


@dataclass(frozen=True, kw_only=True)
class S3Credentials:
    """Who a filer is at these URLs, and where they are answered. What is unset is as for all other URLs.

    `directory`: of the keys, a file each, by the names of AWS' variables; `secret`: whose they are.
    Anonymous, nothing is signed; without either, the identity is that of AWS' standard chain. What is unset
    of `region`, `addressing_style` and `ca_file` is the deployment's only where `endpoint` is unset, too.
    """

    name: str
    urls: tuple[str, ...]
    secret: str | None = None
    directory: str | None = None
    anonymous: bool = False
    requester_pays: bool | None = None
    endpoint: str | None = None
    region: str | None = None
    addressing_style: str | None = None
    ca_file: str | None = None


def to_json(entries: Iterable[S3Credentials]) -> str:
    """Unset fields are left out."""
    documents = [
        {key: value for key, value in asdict(entry).items() if value is not None} for entry in entries
    ]
    return json.dumps(documents, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> tuple[S3Credentials, ...]:
    """Raise MalformedCredentials."""
    try:
        return tuple(S3Credentials(**{**raw, "urls": tuple(raw["urls"])}) for raw in json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedCredentials(f"no list of credentials: {error}") from error


class Choice(Generic[_Entry]):
    """Entries by their URLs; of two for the same URL the first."""

    def __init__(self, entries: Iterable[_Entry]) -> None:
        prefixes: dict[str, dict[str, _Entry]] = {}
        for entry in entries:
            for bucket, key in filter(None, map(_place, entry.urls)):
                prefixes.setdefault(bucket, {}).setdefault(key, entry)
        self._of_bucket = {
            bucket: sorted(of_key.items(), key=lambda item: -len(item[0]))
            for bucket, of_key in prefixes.items()
        }

    def closest(self, url: str) -> _Entry | None:
        """The entry with the longest URL that `url` begins with."""
        bucket, key = _place(url) or ("", "")
        prefixes = self._of_bucket.get(bucket, ())
        return next((entry for prefix, entry in prefixes if _is_at_or_below(key, prefix)), None)

    def needed(self, url: str, *, directory: bool) -> Iterator[_Entry]:
        """The entry for `url` and, if that may be a directory, those for the things in it; some twice."""
        closest = self.closest(url)
        if closest is not None:
            yield closest
        if directory:
            bucket, key = _place(url) or ("", "")
            for prefix, entry in self._of_bucket.get(bucket, ()):
                if _is_at_or_below(prefix, key):
                    yield entry


def _place(url: str) -> tuple[str, str] | None:
    """Bucket and key, which is literal; None if it is no S3 URL."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() != "s3":
        return None
    bucket, _, key = rest.partition("/")
    return bucket, key.removesuffix("/")


def _is_at_or_below(key: str, prefix: str) -> bool:
    return not prefix or key == prefix or key.startswith(f"{prefix}/")
