#!/bin/sh
# A filer in shell, to show that docs/filers.md (contract version 1) is all there is to know.
#
# Inputs: http://… (wget), mem://TEXT (the text itself). Outputs: mem://… (told, kept nowhere).
# Strings that need JSON escapes, and patterns, are beyond a filer this small.
set -u
umask 0
work_list=${POIESIS_WORK_LIST:-/poiesis/spec/work.json}
progress=${POIESIS_RUN:-/poiesis/run}/progress.jsonl
tab=$(printf '\t')
files=0 bytes=0

quoted() { printf '"%s"' "$(printf '%s' "$1" | tr '\n' ' ' | sed 's/[\\"]/\\&/g')"; }
tell() { printf '%s\n' "$1" >>"$progress"; }
fail() { # code message
  tell "{\"event\":\"error\",\"message\":$(quoted "$2")}"
  exit "$1"
}

# One line an item: list, url, local, path.
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

count() { # file
  files=$((files + 1)) bytes=$((bytes + $(stat -c %s "$1")))
}

stage() { # url local path
  mkdir -p "${2%/*}" || fail 75 "cannot make the directory of $3"
  case $1 in
    mem://*) printf '%s' "${1#mem://}" >"$2.part" || fail 75 "cannot write $3" ;;
    http://*)
      said=$(wget -q -O "$2.part" "$1" 2>&1) || case $said in
        *' 4'[0-9][0-9]*) fail 65 "cannot fetch $1: $said" ;; # the server refuses
        *) fail 75 "cannot fetch $1: $said" ;;
      esac
      ;;
    *) fail 65 "no way to fetch $1" ;;
  esac
  mv "$2.part" "$2" || fail 75 "cannot write $3" # whole or not at all: a filer may be started again
  count "$2"
}

send() { # url local path
  case $1 in mem://*) ;; *) fail 65 "no way to send to $1" ;; esac
  if [ ! -f "$2" ]; then
    tell "{\"event\":\"warning\",\"message\":$(quoted "$3 was not produced")}"
    return
  fi
  tell "{\"event\":\"output\",\"url\":$(quoted "$1"),\"path\":$(quoted "$3"),\"size_bytes\":$(stat -c %s "$2")}"
  count "$2"
}

grep -q '"version":1' "$work_list" || fail 65 "$work_list is not a work list of version 1"
items | { # the exit code of this group is the filer's
  while IFS=$tab read -r list url local path; do
    case $list in
      inputs) stage "$url" "$local" "$path" ;;
      outputs) send "$url" "$local" "$path" ;;
    esac
  done
  tell "{\"event\":\"progress\",\"files\":$files,\"bytes\":$bytes}"
}
