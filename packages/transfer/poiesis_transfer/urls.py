"""Storage URLs as TES tasks name them. Pure; standard library only."""

import re
from dataclasses import dataclass

from poiesis_transfer.errors import Permanent

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_AFTER_PATH = re.compile(r"[?#].*", re.DOTALL)


@dataclass(frozen=True)
class S3Url:
    """A bucket and a key. The key is literal: spaces, `?`, `#` and `%` stand for themselves."""

    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def prefix(self) -> str:
        """The prefix of the keys below this directory; empty for the whole bucket."""
        return self.key if not self.key or self.key.endswith("/") else self.key + "/"

    def with_key(self, key: str) -> "S3Url":
        """Another key of the same bucket."""
        return S3Url(self.bucket, key)


def scheme(url: str) -> str:
    """In lower case; empty for a bare path."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def parse_s3(url: str) -> S3Url:
    """`s3://bucket/key`; raise Permanent. The key is empty when the URL names a bucket."""
    if scheme(url) != "s3" or url[3:5] != "//":
        raise Permanent(f"{shown(url)} is not an S3 URL (s3://bucket/key)")
    bucket, _, key = url[5:].partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise Permanent(f"{shown(url)} does not name an S3 bucket (s3://bucket/key)")
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise Permanent(f"{shown(url)}: an S3 key has to be UTF-8") from error
    return S3Url(bucket, key)


def shown(url: str) -> str:
    """A URL for messages: no userinfo and, except in S3 keys where `?` stands for itself, no query."""
    start, slashes, rest = url.partition("//")
    if not slashes or not start.endswith(":"):
        return url
    if start.lower() != "s3:":
        rest = _AFTER_PATH.sub("", rest)
    authority, slash, path = rest.partition("/")
    return printable(f"{start}//{authority.rpartition('@')[2]}{slash}{path}")


def printable(text: str) -> str:
    """Text that UTF-8 can hold: what was no UTF-8 in a file's name becomes U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)
