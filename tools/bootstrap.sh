#!/usr/bin/env bash
# Make the virtual environment that every make target uses: the tools of the lock (hashes checked), and every member
# of the workspace, editable. As root on Debian it installs and lists missing packages of Python; with
# POIESIS_BOOTSTRAP=never it prints the packages to install instead.
set -euo pipefail
python=${PYTHON:-python3}
venv=${VENV:-.venv}

log() { printf '%s\n' "bootstrap: $*" >&2; }

need_debian() { # packages...
  if [ "${POIESIS_BOOTSTRAP:-auto}" = never ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    log "please install: $* (for example: sudo apt-get install $*), then run the command again"
    exit 1
  fi
  log "installing Debian packages: $*"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

command -v "$python" >/dev/null || need_debian python3 python3-venv
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  log "Python 3.11 or newer is needed, $("$python" --version) was found; set PYTHON=/path/to/python3"
  exit 1
}
"$python" -c 'import ensurepip, venv' 2>/dev/null || need_debian python3-venv

start=$SECONDS
if [ ! -x "$venv/bin/python" ]; then
  "$python" -m venv "$venv"
fi
log "installing the tools of requirements-dev.lock into $venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
  -r requirements-dev.lock
members=()
while read -r member; do members+=(--editable "$member"); done < <("$venv/bin/python" tools/poiesis_tools/workspace.py)
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index \
  "${members[@]}"
touch "$venv/ready"
log "ready after $((SECONDS - start)) s"
