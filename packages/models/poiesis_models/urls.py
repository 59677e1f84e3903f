"""Storage URLs as the API server and the filers read them. Pure; standard library only.

An S3 key is literal: spaces, `?`, `#` and `%` in it stand for themselves.
"""

import re
from urllib.parse import unquote_to_bytes

KEY_BYTES = 1024  # of an S3 object

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_AFTER_PATH = re.compile(r"[?#].*", re.DOTALL)
_USER = re.compile(r"//.*@", re.DOTALL)


class NotAnS3Url(ValueError):
    """The URL names no S3 bucket or key. `url`: without credentials; `reason`: without the URL."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{redacted(url)} {reason}")
        self.url = redacted(url)
        self.reason = reason


def scheme(url: str) -> str:
    """Return the scheme in lower case; empty for a bare path."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def split_s3(url: str) -> tuple[str, str]:
    """Return bucket and key of `s3://bucket/key`; the key of a bucket is empty. Raise NotAnS3Url."""
    if scheme(url) != "s3" or url[3:5] != "//":
        raise NotAnS3Url(url, "is not an S3 URL (s3://bucket/key)")
    bucket, _, key = url[5:].partition("/")
    if "@" in bucket or ":" in bucket:
        raise NotAnS3Url(
            url,
            "contains a user, host or port; "
            "write s3://bucket/key (endpoint and credentials are the operator's)",
        )
    if not _BUCKET.fullmatch(bucket):
        raise NotAnS3Url(url, "does not name an S3 bucket (s3://bucket/key)")
    if _SURROGATE.search(key):
        raise NotAnS3Url(url, "is not an S3 URL: an S3 key must be UTF-8")
    if len(unquote_to_bytes(key)) > KEY_BYTES:  # a percent-encoded key may be longer
        raise NotAnS3Url(url, f"is not an S3 URL: an S3 key has at most {KEY_BYTES} bytes")
    return bucket, key


def names_s3_directory(url: str) -> bool:
    """Return whether an S3 URL names a whole bucket or ends in `/`."""
    if scheme(url) != "s3":
        return False
    bucket, _, key = url[5:].partition("/")
    return bool(bucket) and (not key or key.endswith("/"))


def shown(url: str) -> str:
    """Return a URL for messages: no user and, except in S3 keys where `?` stands for itself, no query."""
    start, slashes, rest = url.partition("//")
    if not slashes or not start.endswith(":"):
        return url
    if start.lower() != "s3:":
        rest = _AFTER_PATH.sub("", rest)
    authority, slash, path = rest.partition("/")
    return printable(f"{start}//{authority.rpartition('@')[2]}{slash}{path}")


def redacted(url: str) -> str:
    """Return a URL that was not understood for messages: a password in it may contain `/` and `?`."""
    return printable(_AFTER_PATH.sub("", _USER.sub("//", url)))


def printable(text: str) -> str:
    """Return text that UTF-8 can hold: other bytes in a file's name become U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)
