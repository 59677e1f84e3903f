#!/bin/sh
# What an image does not need of an installed Debian; apt still works.
set -eu
rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/usr/share/info "$1"/var/cache/debconf
rm -rf "$1"/var/lib/apt/lists "$1"/var/cache/apt
mkdir -p "$1"/var/lib/apt/lists/partial "$1"/var/cache/apt/archives/partial
rm -f "$1"/etc/resolv.conf "$1"/etc/hostname
