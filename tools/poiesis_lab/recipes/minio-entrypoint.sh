#!/bin/sh
# `server /data` and `minio server /data` mean the same, as in minio/minio.
[ "${1:-}" = minio ] || set -- minio "$@"
exec "$@"
