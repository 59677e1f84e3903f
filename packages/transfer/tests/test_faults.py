"""Whatever an S3 does, no wrong byte is left: neither under the name of an input nor of an output.

POIESIS_FAULT_TRANSFERS and POIESIS_FAULT_SEED set their number and the seed.
"""

# fixtures are arguments

import hashlib
import os
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from faulty_s3 import FAULTS, Mischief, faulty

from poiesis_transfer import fetch as fetch_module
from poiesis_transfer import pool
from poiesis_transfer import s3 as s3_module
from poiesis_transfer.config import S3Config
from poiesis_transfer.errors import Retryable
from poiesis_transfer.files import Destination, SourceFile
from poiesis_transfer.progress import Progress
from poiesis_transfer.retry import Retry
from poiesis_transfer.s3 import MIB
from poiesis_transfer.stores import S3Stores
from poiesis_transfer.urls import S3Url
from poiesis_transfer.web import Limits

TRANSFERS = int(os.environ.get("POIESIS_FAULT_TRANSFERS") or 100)
SEED = int(os.environ.get("POIESIS_FAULT_SEED") or 1)
SHARE = 0.3  # of requests that meet a fault
SIZES = (0, 1, 1000, 70_000, 400_000, 1_500_000, 1000, 70_000, 400_000, 6_500_000)
RETRY = Retry(attempts=6, first_seconds=0.002, longest_seconds=0.02)
LIMITS = Limits(connect=5, idle=10)


def body(key: str, version: int, size: int) -> bytes:
    """Each version of each object has bytes of its own."""
    return hashlib.shake_128(f"{SEED} {key} {version}".encode()).digest(size)


class Objects:
    """What has been stored under each key, in all its versions."""

    def __init__(self, admin: Any, bucket: str) -> None:
        self._admin = admin
        self._bucket = bucket
        self._lock = threading.Lock()
        self._sizes: dict[str, list[int]] = {}

    def put(self, key: str, size: int) -> None:
        with self._lock:
            versions = self._sizes.setdefault(key, [])
            versions.append(size)
            number = len(versions) - 1
        self._admin.put_object(Bucket=self._bucket, Key=key, Body=body(key, number, size))

    def change(self, path: str) -> None:
        """The object becomes another one, of the same size: only its version differs."""
        key = unquote(path.removeprefix(f"/{self._bucket}/"))
        with self._lock:
            sizes = list(self._sizes.get(key, []))
        if sizes and len(sizes) < 4:
            self.put(key, sizes[-1])

    def versions(self, key: str) -> list[bytes]:
        with self._lock:
            sizes = list(self._sizes[key])
        return [body(key, number, size) for number, size in enumerate(sizes)]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetch_module, "WHOLE_BYTES", 300_000)
    monkeypatch.setattr(fetch_module, "PART_BYTES", 250_001)
    monkeypatch.setattr(s3_module, "WHOLE_BYTES", 6_000_000)
    monkeypatch.setattr(s3_module, "SEND_PART_BYTES", 5 * MIB)


@pytest.mark.integration
@pytest.mark.usefixtures("small_parts")
def test_no_fault_leaves_a_wrong_byte(
    s3: S3Config,
    admin: Any,
    bucket: str,
    tmp_path: Path,
    progress: Progress,
):
    objects = Objects(admin, bucket)
    mischief = Mischief(SEED, SHARE)
    ends: Counter[str] = Counter()
    with faulty(s3.endpoint_url or "", mischief, objects.change) as url:
        there = replace(s3, endpoint_url=url, addressing_style="path")
        with S3Stores(there, limits=LIMITS, retry=RETRY) as store:

            def transfer(number: int) -> None:
                size = random.Random(f"{SEED} {number}").choice(SIZES)  # noqa: S311
                if number % 2:
                    ended = fetched(store, S3Url(bucket, f"in/{number}"), size)
                else:
                    ended = sent(store, S3Url(bucket, f"out/{number}"), size)
                ends[ended] += 1

            def fetched(store: S3Stores, source: S3Url, size: int) -> str:
                objects.put(source.key, size)
                target = tmp_path / source.key.replace("/", "-")
                ended = attempt(lambda: download(store, source, target, progress))
                if ended == "done":
                    assert target.read_bytes() in objects.versions(source.key), source.key
                    target.unlink()
                assert not target.exists()
                return ended

            def sent(store: S3Stores, target: S3Url, size: int) -> str:
                source = tmp_path / target.key.replace("/", "-")
                source.write_bytes(body(target.key, 0, size))
                ended = attempt(lambda: upload(store, source, target, progress))
                stored = admin.list_objects_v2(Bucket=bucket, Prefix=f"{target.key}").get("Contents", [])
                found = [entry for entry in stored if entry["Key"] == target.key]
                if found or ended == "done":
                    came = admin.get_object(Bucket=bucket, Key=target.key)["Body"].read()
                    assert came == source.read_bytes(), target.key
                source.unlink()
                return ended

            pool.for_each(range(TRANSFERS), transfer, concurrency=8)
    sys.stdout.write(f"{TRANSFERS} transfers, seed {SEED}: {dict(ends)}; faults: {dict(mischief.done)}")
    assert ends.total() == TRANSFERS
    assert ends["done"] > 0.8 * TRANSFERS
    assert TRANSFERS < 100 or set(mischief.done) == set(FAULTS)
    unfinished = admin.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    assert {upload["UploadId"] for upload in unfinished} <= mischief.stay


def attempt(transfer: Callable[[], None]) -> str:
    """A transfer may be given up, for another start of the filer; it may not fail for good."""
    try:
        transfer()
    except Retryable:
        return "given up"
    return "done"


def download(store: S3Stores, source: S3Url, target: Path, progress: Progress) -> None:
    with Destination(target, "/in/f", progress) as destination:
        store.download(source, destination)


def upload(store: S3Stores, source: Path, target: S3Url, progress: Progress) -> None:
    with SourceFile(str(source), "/out/f") as file:
        store.upload(file, target, progress)
