#!/bin/sh
# After: no JIT (it brings a 130 MB compiler), a configuration that listens, and directories any user can start from.
set -eu
rm -rf "$1"/usr/lib/postgresql/*/lib/llvmjit* "$1"/usr/lib/postgresql/*/lib/bitcode
rm -f "$1"/usr/lib/*/libLLVM*.so* "$1"/usr/lib/llvm-*/lib/libLLVM*
rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/usr/share/info "$1"/var/cache/debconf
sed -i "s/^#*listen_addresses = .*/listen_addresses = '*'/" "$1"/usr/share/postgresql/*/postgresql.conf.sample
mkdir -p "$1/docker-entrypoint-initdb.d" "$1/var/lib/postgresql/data"
chown -R 999:999 "$1/var/lib/postgresql"
chmod 1777 "$1/var/lib/postgresql" "$1/var/lib/postgresql/data"
