from s3_for_tests import admin, bucket, s3

__all__ = ["admin", "bucket", "s3"]
