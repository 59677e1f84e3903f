import base64
import hashlib
import itertools
import zlib

import pytest

from poiesis_transfer import checksums
from poiesis_transfer.checksums import Expected, expected

DATA = bytes(range(256)) * 1000
MD5 = hashlib.md5(DATA, usedforsecurity=False)
S3 = {"x-amz-request-id": "1"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("algorithm", ["crc64nvme", "crc32c", "crc32"])
def test_crcs_of_parts_are_put_together(algorithm: str):
    cuts = [0, 1, 1, 70_000, 255_999, len(DATA)]
    parts = [checksums.of_blocks(algorithm, [DATA[start:stop]]) for start, stop in itertools.pairwise(cuts)]
    assert checksums.combined(algorithm, parts) == checksums.of_blocks(algorithm, [DATA]).digest()


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("crc32", zlib.crc32(b"123456789").to_bytes(4, "big")),
        ("crc32c", bytes.fromhex("e3069283")),
        ("crc64nvme", bytes.fromhex("ae8b14860a799888")),
        ("sha256", hashlib.sha256(b"123456789").digest()),
    ],
)
def test_check_values_are_those_of_the_catalogues(algorithm: str, digest: bytes):
    assert checksums.of_blocks(algorithm, [b"1234", b"56789"]).digest() == digest


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({**S3, "etag": f'"{MD5.hexdigest()}"'}, Expected("md5", MD5.digest())),
        ({"etag": f'"{MD5.hexdigest()}"'}, None),  # no S3
        ({**S3, "etag": f'"{MD5.hexdigest()}-7"'}, None),
        ({**S3, "etag": f'"{MD5.hexdigest()}"', "x-amz-server-side-encryption": "aws:kms"}, None),
        (
            {**S3, "etag": f'"{MD5.hexdigest()}"', "x-amz-server-side-encryption": "AES256"},
            Expected("md5", MD5.digest()),
        ),
        (
            {**S3, "etag": f'"{MD5.hexdigest()}"', "x-amz-checksum-crc32c": b64(b"abcd")},
            Expected("crc32c", b"abcd"),
        ),
        ({"x-amz-checksum-crc32c": b64(b"abcd"), "x-amz-checksum-type": "COMPOSITE"}, None),
        ({"x-amz-checksum-sha256": b64(b"x" * 32) + "-3"}, None),
        ({"x-goog-hash": f"md5={b64(b'x')},crc32c={b64(b'abcd')}"}, Expected("crc32c", b"abcd")),
        ({"x-amz-checksum-crc64nvme": "not base64!"}, None),
        ({}, None),
    ],
)
def test_checksum_of_the_whole_object_is_read(headers: dict[str, str], found: Expected | None):
    assert expected(headers) == found


def test_etags_are_not_md5_if_configured():
    assert expected({**S3, "etag": f'"{MD5.hexdigest()}"'}, etags_are_md5=False) is None
