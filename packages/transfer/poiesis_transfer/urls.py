"""S3 URLs in TES tasks. Pure; standard library only."""

from dataclasses import dataclass

from poiesis_models import escapes
from poiesis_models.urls import NotAnS3Url, printable, scheme, shown, split_s3
from poiesis_transfer.errors import Permanent

__all__ = ["S3Url", "parse_s3", "printable", "scheme", "shown"]


@dataclass(frozen=True)
class S3Url:
    """A bucket and a key. The key is literal: spaces, `?`, `#` and `%` have no special meaning."""

    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def prefix(self) -> str:
        """Return the prefix of the keys below this directory; empty for the whole bucket."""
        return self.key if not self.key or self.key.endswith("/") else self.key + "/"

    @property
    def decoded(self) -> "S3Url | None":
        """Return the URL with its key percent-decoded; None if that is no other key."""
        key = escapes.other_form(self.key)
        return None if key is None else self.with_key(key)

    def with_key(self, key: str) -> "S3Url":
        """Return the URL of another key in the same bucket."""
        return S3Url(self.bucket, key)


def parse_s3(url: str) -> S3Url:
    """Parse `s3://bucket/key`; the key is empty if the URL names a bucket. Raise Permanent."""
    try:
        return S3Url(*split_s3(url))
    except NotAnS3Url as error:
        raise Permanent(str(error)) from error
