from s3_for_tests import admin, bucket, other_bucket, s3

__all__ = ["admin", "bucket", "other_bucket", "s3"]
