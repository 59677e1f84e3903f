"""Which credentials apply to which S3 URLs, and their form for filers (filer contract v1). No secrets.

The API and the filers use the same rule: the entry with the longest matching URL prefix, compared by path
segment. Pure; standard library only, because every task pays for the start of its filers.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, Protocol, TypeVar


class ForUrls(Protocol):
    """An entry that applies to some S3 URLs: buckets, or prefixes of their keys."""

    @property
    def urls(self) -> Sequence[str]:
        """`s3://bucket` or `s3://bucket/key/prefix`; a trailing slash is ignored."""


_Entry = TypeVar("_Entry", bound=ForUrls)


class MalformedCredentials(ValueError):
    """The text is not a list of credentials."""


@dataclass(frozen=True, kw_only=True)
class S3Credentials:
    """Identity and endpoint of a filer for some S3 URLs. Unset fields have the deployment's values.

    `directory`: one file per key, named as AWS' variables; `secret`: the Secret with the keys. Anonymous
    requests are not signed. Without either, AWS' standard credential chain applies. The deployment's
    `region`, `addressing_style` and `ca_file` apply only if `endpoint` is unset, too.
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
    """Return the entries as JSON, without unset fields."""
    documents = [
        {key: value for key, value in asdict(entry).items() if value is not None} for entry in entries
    ]
    return json.dumps(documents, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> tuple[S3Credentials, ...]:
    """Parse the entries. Raise MalformedCredentials."""
    try:
        return tuple(S3Credentials(**{**raw, "urls": tuple(raw["urls"])}) for raw in json.loads(text))
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedCredentials(f"not a list of credentials: {error}") from error


class Choice(Generic[_Entry]):
    """Finds entries by URL prefix; the first of several entries for the same prefix is used."""

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
        """Return the entry with the longest matching prefix of `url`, or None."""
        bucket, key = _place(url) or ("", "")
        prefixes = self._of_bucket.get(bucket, ())
        return next((entry for prefix, entry in prefixes if _is_at_or_below(key, prefix)), None)

    def needed(self, url: str, *, directory: bool) -> Iterator[_Entry]:
        """Yield the entry for `url` and, for a directory, the entries for objects in it; some repeatedly."""
        closest = self.closest(url)
        if closest is not None:
            yield closest
        if directory:
            bucket, key = _place(url) or ("", "")
            for prefix, entry in self._of_bucket.get(bucket, ()):
                if _is_at_or_below(prefix, key):
                    yield entry


def _place(url: str) -> tuple[str, str] | None:
    """Return bucket and literal key; None if it is not an S3 URL."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() != "s3":
        return None
    bucket, _, key = rest.partition("/")
    return bucket, key.removesuffix("/")


def _is_at_or_below(key: str, prefix: str) -> bool:
    return not prefix or key == prefix or key.startswith(f"{prefix}/")
