from pathlib import Path

import pytest

from poiesis_transfer.progress import Progress
from s3_for_tests import admin, bucket, other_bucket, s3

__all__ = ["admin", "bucket", "other_bucket", "s3"]


@pytest.fixture
def progress(tmp_path: Path):
    with Progress(tmp_path) as progress:
        yield progress
