#!/bin/sh
# A whole filer in shell: contract v1 of docs/filers.md without a library.
#
# Inputs: http://… (wget), mem://TEXT (the text itself). Outputs: mem://… (read and told, sent nowhere).
# Exit 0: done, 65: cannot be, 75: try again. It may be started twice: files are written aside and renamed.
set -u
work_list=${POIESIS_WORK_LIST:-/poiesis/spec/work.json}
progress=${POIESIS_RUN:-/poiesis/run}/progress.jsonl
tab=$(printf '\t')
files=0 bytes=0

quote() { printf '%s' "$1" | sed 's/[\\"]/\\&/g'; }
tell() { printf '%s\n' "$1" >>"$progress"; }
fail() { # code message
  tell "{\"event\":\"error\",\"message\":\"$(quote "$2")\"}"
  echo "$2" >&2
  exit "$1"
}

# One line an item: list, url, local, path. Strings that need JSON escapes are beyond a filer this small.
items() {
  awk -v tab="$tab" '
    function value(key,   at, rest) {
      at = index($0, "\"" key "\":\"")
      if (!at) return ""
      rest = substr($0, at + length(key) + 4)
      return substr(rest, 1, index(rest, "\"") - 1)
    }
    BEGIN { RS = "{"; list = "none" }
    {
      if (value("local") != "") print list tab value("url") tab value("local") tab value("path")
      if (index($0, "\"inputs\":[")) list = "inputs"
      if (index($0, "\"outputs\":[")) list = "outputs"
    }' "$work_list"
}

stage() { # url local
  mkdir -p "$(dirname "$2")" || fail 75 "cannot make the directory of $2"
  case $1 in
    mem://*) printf '%s' "${1#mem://}" >"$2.part" ;;
    http://*) wget -q -O "$2.part" "$1" || fail 65 "cannot fetch $1" ;;
    *) fail 65 "no way to fetch $1" ;;
  esac
  chmod 0666 "$2.part" && mv "$2.part" "$2" || fail 75 "cannot write $2"
}

send() { # url local path
  case $1 in mem://*) ;; *) fail 65 "no way to send to $1" ;; esac
  [ -f "$2" ] || return 0
  tell "{\"event\":\"output\",\"url\":\"$(quote "$1")\",\"path\":\"$(quote "$3")\",\"size_bytes\":$(stat -c %s "$2")}"
}

grep -q '"version":1' "$work_list" || fail 65 "$work_list is not a work list of version 1"
items | while IFS=$tab read -r list url local path; do # its exit code is the filer's
  case $list in
    inputs) stage "$url" "$local" ;;
    outputs) send "$url" "$local" "$path" ;;
  esac
  if [ -f "$local" ]; then
    files=$((files + 1)) bytes=$((bytes + $(stat -c %s "$local")))
    tell "{\"event\":\"progress\",\"files\":$files,\"bytes\":$bytes}"
  fi
done
