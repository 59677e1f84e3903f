#!/bin/sh
# As in the python images: `python`, and pip outside a virtual environment.
set -eu
ln -sf python3 "$1/usr/bin/python"
rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED
