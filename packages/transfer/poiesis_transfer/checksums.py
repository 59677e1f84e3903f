"""Checksums of objects: which one a response contains, and how to compute it from parts.

CRCs of parts can be combined, so parts that arrive concurrently need no second read. Other checksums are
computed from the first byte to the last. awscrt, which computes CRCs with processor instructions, is loaded
when the first one is needed.
"""

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Update = Callable[[bytes | bytearray | memoryview, int], int]

_CRC_BYTES = {"crc64nvme": 8, "crc32c": 4, "crc32": 4}
_HASHES = ("sha256", "sha1", "md5")
_PREFERRED = ("crc64nvme", "crc32c", "crc32", "sha256", "sha1")
_MD5_ETAG = re.compile(r'"([0-9a-f]{32})"')


@dataclass(frozen=True)
class Expected:
    """The store's own checksum of the whole object."""

    algorithm: str
    digest: bytes

    @property
    def of_parts(self) -> bool:
        """Return whether it can be combined from checksums of parts."""
        return self.algorithm in _CRC_BYTES


class Running:
    """A checksum that is being computed. `length` is the number of bytes, which combining parts requires."""

    def __init__(self, algorithm: str) -> None:
        self._crc: Update | None = _crc(algorithm) if algorithm in _CRC_BYTES else None
        self._hash: Any = None if self._crc else hashlib.new(algorithm, usedforsecurity=False)
        self._value = 0
        self._bytes = _CRC_BYTES.get(algorithm, 0)
        self.length = 0

    def update(self, block: bytes | bytearray | memoryview) -> None:
        """Add the next bytes."""
        self.length += len(block)
        if self._crc is not None:
            self._value = self._crc(block, self._value)
        else:
            self._hash.update(block)

    def digest(self) -> bytes:
        """Return the checksum, big-endian like the base64 in S3's headers."""
        return (
            self._value.to_bytes(self._bytes, "big") if self._crc is not None else bytes(self._hash.digest())
        )


def of_blocks(algorithm: str, blocks: Iterable[bytes]) -> Running:
    """Return the checksum of all blocks."""
    running = Running(algorithm)
    for block in blocks:
        running.update(block)
    return running


def combined(algorithm: str, parts: Iterable[Running]) -> bytes:
    """Return the CRC of the concatenated parts."""
    from awscrt import checksums

    combine = getattr(checksums, f"combine_{algorithm}")
    value = 0
    for part in parts:
        value = combine(value, int.from_bytes(part.digest(), "big"), part.length)
    return int(value).to_bytes(_CRC_BYTES[algorithm], "big")


def in_base64(digest: bytes) -> str:
    """Return a digest as it is written in headers."""
    return base64.b64encode(digest).decode()


def expected(headers: Mapping[str, str], *, etags_are_md5: bool = True) -> Expected | None:
    """Return the checksum of the whole object from the headers of a GET; None if there is no usable one.

    These are used: S3's `x-amz-checksum-…`, unless it is composed of part checksums; Google's `x-goog-hash`;
    the ETag of an S3 store if it is an MD5, which excludes multipart uploads and customer-encrypted objects.
    """
    for algorithm in _PREFERRED:
        value = headers.get(f"x-amz-checksum-{algorithm}", "")
        if value and "-" not in value and headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT":
            return _decoded(algorithm, value)
    for item in headers.get("x-goog-hash", "").split(","):
        algorithm, _, value = item.strip().partition("=")
        if algorithm == "crc32c":
            return _decoded(algorithm, value)
    if etags_are_md5 and (digest := md5_etag(headers)):
        return Expected("md5", digest)
    return None


def md5_etag(headers: Mapping[str, str]) -> bytes | None:
    """Return the MD5 in the ETag of an S3 store; None if the ETag is no MD5."""
    match = _MD5_ETAG.fullmatch(headers.get("etag", ""))
    if match is None or "x-amz-request-id" not in headers:
        return None
    if headers.get("x-amz-server-side-encryption", "AES256") != "AES256":
        return None
    if headers.get("x-amz-server-side-encryption-customer-algorithm"):
        return None
    return bytes.fromhex(match[1])


def etag_of_parts(etags: Sequence[str]) -> str | None:
    """Return the multipart ETag for the ETags of the parts, if these are MD5 sums; else None."""
    if not all(_MD5_ETAG.fullmatch(f'"{etag}"') for etag in etags):
        return None
    digests = b"".join(bytes.fromhex(etag) for etag in etags)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(etags)}"


def _decoded(algorithm: str, value: str) -> Expected | None:
    try:
        return Expected(algorithm, base64.b64decode(value, validate=True))
    except binascii.Error:
        return None


def _crc(algorithm: str) -> Update:
    if algorithm == "crc32":
        return zlib.crc32  # boto3 uses it, and for small objects loading awscrt would take longer
    from awscrt import checksums

    update: Update = getattr(checksums, algorithm)
    return update
