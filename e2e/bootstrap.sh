#!/usr/bin/env bash
# Make the virtual environment that every make target uses, from the lock (hashes checked).
# As root on Debian it installs what Python itself lacks and says so; POIESIS_BOOTSTRAP=never only tells.
set -euo pipefail
python=${PYTHON:-python3}
venv=${VENV:-.venv}

say() { printf '%s\n' "bootstrap: $*" >&2; }

need_debian() { # packages...
  if [ "${POIESIS_BOOTSTRAP:-auto}" = never ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "please install: $* (for example: sudo apt-get install $*), then run the command again"
    exit 1
  fi
  say "installing Debian packages: $*"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

command -v "$python" >/dev/null || need_debian python3 python3-venv
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  say "Python 3.11 or newer is needed, $("$python" --version) was found; set PYTHON=/path/to/python3"
  exit 1
}
"$python" -c 'import ensurepip, venv' 2>/dev/null || need_debian python3-venv

start=$SECONDS
if [ ! -x "$venv/bin/python" ]; then
  "$python" -m venv "$venv"
fi
say "installing the tools of requirements-dev.lock into $venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
  -r requirements-dev.lock
touch "$venv/ready"
say "ready after $((SECONDS - start)) s"
