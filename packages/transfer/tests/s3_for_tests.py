"""Fixtures for the tests of the filers: a real S3, and a filer as a process. Not part of the package."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from poiesis_e2e.storage import Endpoint
from poiesis_models import runfiles
from poiesis_models.worklist import WorkList
from poiesis_transfer.config import S3Config


@pytest.fixture(scope="session")
def s3(s3_endpoint: Any) -> S3Config:
    """Return the S3 configuration of a filer."""
    return S3Config(
        endpoint_url=s3_endpoint.url,
        access_key_id=s3_endpoint.access_key,
        secret_access_key=s3_endpoint.secret_key,
    )


@pytest.fixture(scope="session")
def admin(s3: S3Config) -> Iterator[Any]:
    """Return an independent S3 client, to prepare data and to inspect results."""
    client = _endpoint(s3).client()
    yield client
    client.close()


@pytest.fixture
def bucket(admin: Any) -> Iterator[str]:
    """An empty bucket."""
    yield from _bucket(admin)


@pytest.fixture
def other_bucket(admin: Any) -> Iterator[str]:
    """Another empty bucket."""
    yield from _bucket(admin)


def _bucket(admin: Any) -> Iterator[str]:
    name = f"filer-tests-{secrets.token_hex(6)}"
    admin.create_bucket(Bucket=name)
    yield name
    for page in admin.get_paginator("list_objects_v2").paginate(Bucket=name):
        for entry in page.get("Contents", ()):
            admin.delete_object(Bucket=name, Key=entry["Key"])
    admin.delete_bucket(Bucket=name)


def keys_of(s3: S3Config, bucket: str, secret: Path) -> Path:
    """The directory `secret` as a Secret with full access to one bucket and no other."""
    secret.mkdir()
    for name, value in _endpoint(s3).secret_for(bucket).items():
        (secret / name).write_text(value)
    return secret


def _endpoint(s3: S3Config) -> Endpoint:
    url = s3.endpoint_url or ""
    return Endpoint(
        url=url,
        pod_url=url,
        access_key=s3.access_key_id or "",
        secret_key=s3.secret_access_key or "",
        region=s3.region,
    )


def keys(admin: Any, bucket: str) -> dict[str, int]:
    """All objects of a bucket and their sizes."""
    pages = admin.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", ())}


@dataclass(frozen=True)
class Ended:
    """The outcome of a filer."""

    code: int
    progress: runfiles.FilerProgress
    log: str
    max_rss_mib: float


def environment(s3: S3Config | None = None) -> dict[str, str]:
    """What a filer's container has, and where the code under test lies."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    if s3 is not None:
        env |= {
            "AWS_ENDPOINT_URL_S3": s3.endpoint_url or "",
            "AWS_REGION": s3.region,
            "AWS_ACCESS_KEY_ID": s3.access_key_id or "",
            "AWS_SECRET_ACCESS_KEY": s3.secret_access_key or "",
            "POIESIS_S3_ADDRESSING_STYLE": s3.addressing_style,
        }
    return env


_RUN = """
import atexit, pathlib, re, runpy, sys
module, peak = sys.argv[1:]
sys.argv[1:] = []

@atexit.register
def measure():  # not ru_maxrss, which begins with what the parent had when it forked
    status = pathlib.Path("/proc/self/status").read_text()
    pathlib.Path(peak).write_text(str(int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024))

runpy.run_module(module, run_name="__main__")
"""


def run_filer(module: str, work: WorkList, run: Path, s3: S3Config | None = None, **changed: str) -> Ended:
    """Run a filer as its container would; `run` is its run directory and holds the work list too."""
    (run / "work.json").write_text(work.to_json(), encoding="utf-8")
    places = {"POIESIS_RUN": str(run), "POIESIS_WORK_LIST": str(run / "work.json")}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", _RUN, module, str(run / "peak")],
        env=environment(s3) | places | changed,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    progress = runfiles.parse_progress((run / runfiles.PROGRESS).read_bytes())
    peak = float((run / "peak").read_text())
    return Ended(result.returncode, progress, result.stdout.decode(), peak)


def loaded_by(module: str, work: WorkList, run: Path) -> set[str]:
    """Modules that a filer has loaded when it has done its work."""
    (run / "work.json").write_text(work.to_json(), encoding="utf-8")
    code = (
        "import json, runpy, sys\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(json.dumps([end.code, sorted(sys.modules)]))\n"
    )
    places = {"POIESIS_RUN": str(run), "POIESIS_WORK_LIST": str(run / "work.json")}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment() | places, capture_output=True, check=True
    )
    code_and_modules: tuple[int, list[str]] = json.loads(result.stdout)
    if code_and_modules[0] != 0:
        raise AssertionError(result.stderr.decode())
    return set(code_and_modules[1])
