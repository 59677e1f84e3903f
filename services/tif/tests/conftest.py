import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "packages/transfer/tests"))

from s3_for_tests import admin, bucket, other_bucket, s3  # after its directory is on the path

__all__ = ["admin", "bucket", "other_bucket", "s3"]
