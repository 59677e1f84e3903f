"""Checksums that stores keep of objects: which one an answer offers, and how it is computed from parts.

CRCs of parts can be put together, so parts that come at the same time need no second look; anything else is
computed from the first byte to the last. awscrt, which does the CRCs by the processor's own instructions, is
loaded when the first is asked for.
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
        """Whether it follows from the checksums of parts."""
        return self.algorithm in _CRC_BYTES


class Running:
    """A checksum in the making. `length` counts the bytes, which putting parts together needs."""

    def __init__(self, algorithm: str) -> None:
        self._crc: Update | None = _crc(algorithm) if algorithm in _CRC_BYTES else None
        self._hash: Any = None if self._crc else hashlib.new(algorithm, usedforsecurity=False)
        self._value = 0
        self._bytes = _CRC_BYTES.get(algorithm, 0)
        self.length = 0

    def update(self, block: bytes | bytearray | memoryview) -> None:
        """The next bytes."""
        self.length += len(block)
        if self._crc is not None:
            self._value = self._crc(block, self._value)
        else:
            self._hash.update(block)

    def digest(self) -> bytes:
        """Big-endian, as S3's headers have it in base64."""
        return (
            self._value.to_bytes(self._bytes, "big") if self._crc is not None else bytes(self._hash.digest())
        )


def of_blocks(algorithm: str, blocks: Iterable[bytes]) -> Running:
    """The checksum of all of them."""
    running = Running(algorithm)
    for block in blocks:
        running.update(block)
    return running


def combined(algorithm: str, parts: Iterable[Running]) -> bytes:
    """The CRC of the parts one after the other."""
    from awscrt import checksums

    combine = getattr(checksums, f"combine_{algorithm}")
    value = 0
    for part in parts:
        value = combine(value, int.from_bytes(part.digest(), "big"), part.length)
    return int(value).to_bytes(_CRC_BYTES[algorithm], "big")


def in_base64(digest: bytes) -> str:
    """As headers have it."""
    return base64.b64encode(digest).decode()


def expected(headers: Mapping[str, str], *, etags_are_md5: bool = True) -> Expected | None:
    """What the answer to a GET of a whole object says of it; None if that is nothing to compare with.

    S3's `x-amz-checksum-…`, unless it is one of the parts' checksums; Google's `x-goog-hash`; the ETag of an
    S3 store where it is an MD5: not of an object that came in parts or is encrypted with a key of its own.
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
    """The MD5 that the ETag of an S3 store is, unless it is none."""
    match = _MD5_ETAG.fullmatch(headers.get("etag", ""))
    if match is None or "x-amz-request-id" not in headers:
        return None
    if headers.get("x-amz-server-side-encryption", "AES256") != "AES256":
        return None
    if headers.get("x-amz-server-side-encryption-customer-algorithm"):
        return None
    return bytes.fromhex(match[1])


def etag_of_parts(etags: Sequence[str]) -> str | None:
    """The ETag of an object from those of its parts, if these are MD5s: the MD5 of them all, and how many."""
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
        return zlib.crc32  # boto3 stores it; a small object is not worth the start of awscrt
    from awscrt import checksums

    update: Update = getattr(checksums, algorithm)
    return update
