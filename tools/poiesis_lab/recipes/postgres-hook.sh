#!/bin/sh
# Before packages are set up: the user and group id of the official image, and no cluster made at installation.
set -eu
echo "postgres:x:999:" >>"$1/etc/group"
echo "postgres:x:999:999:PostgreSQL:/var/lib/postgresql:/bin/bash" >>"$1/etc/passwd"
mkdir -p "$1/etc/postgresql-common"
echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf"
