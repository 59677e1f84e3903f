#!/bin/sh
# A filer in shell, to show that docs/reference/filers.md (contract version 1) is all there is to know.
#
# Inputs: http://…, https://…, mem://TEXT (the text itself). Outputs: http://…, https://… (PUT, WebDAV's
# MKCOL for directories), mem://… (reported, not stored). Credentials: `netrc` in the filer's Secret.
set -u
umask 0
progress=$POIESIS_RUN/progress.jsonl
netrc=${POIESIS_SECRET:-/nowhere}/netrc
files=0 bytes=0

emit() { jq -cn "$@" >>"$progress"; }
warn() { emit --arg m "$1" '{event: "warning", message: $m}'; }
fail() { emit --arg m "$2" '{event: "error", message: $m}' && exit "$1"; } # code message
shown() { printf %s "${1%%\?*}" | sed 's|//[^/@]*@|//|'; }               # a URL without query and userinfo
encoded() { jq -rn --arg s "$1" '$s | split("/") | map(@uri) | join("/")'; }
field() { printf %s "$item" | jq -r --arg k "$1" '.[$k] // ""'; }
count() { files=$((files + 1)) bytes=$((bytes + $(stat -c %s -- "$1"))); } # file

# The status is in $status. Ends the filer if there is none, and if it is neither 2xx nor one of $3.
ask() { # what url expected [curl option]...
  what=$1 asked=$2 expected=$3
  shift 3
  set -- -sS --globoff --connect-timeout 15 --max-redirs 10 -L -w '%{http_code}' "$@" --url "$asked"
  [ ! -e "$netrc" ] || set -- --netrc-file "$netrc" "$@"
  status=$(curl "$@" 2>/dev/null) || case $? in
    3 | 23) fail 65 "$what: it is no URL, or there is no space left (curl)" ;;
    *) fail 75 "$what: no answer" ;;
  esac
  case " 200 201 204 $expected " in *" $status "*) return ;; esac
  case $status in
    408 | 429 | 5*) fail 75 "$what: HTTP status $status" ;;
    *) fail 65 "$what: HTTP status $status" ;;
  esac
}

stage() {
  url=$(field url) local=$(field local) path=$(field path) content=$(field content_file)
  [ "$(field type)" != DIRECTORY ] || fail 65 "$path: HTTP lists no directories"
  mkdir -p -- "${local%/*}" || fail 65 "cannot make the directory of $path"
  if [ "$content" ]; then
    cp -- "${POIESIS_WORK_LIST%/*}/$content" "$local.part" || fail 65 "cannot write $path"
  else
    case $url in
      mem://*) printf %s "${url#mem://}" >"$local.part" || fail 65 "cannot write $path" ;;
      http://* | https://*) ask "cannot fetch $(shown "$url") (input $path)" "$url" "" -o "$local.part" ;;
      *) fail 65 "no way to fetch $(shown "$url")" ;;
    esac
    [ -e "$local.part" ] || : >"$local.part" # of an empty file curl makes none
  fi
  chmod 777 -- "$local.part" && mv -- "$local.part" "$local" || fail 65 "cannot write $path"
  count "$local"
}

send() {
  url=$(field url) local=$(field local) path=$(field path)
  root=${local%"$path"}
  if [ "$(field wildcard)" != true ]; then
    send_tree "$url" "$local" "$path"
    return
  fi
  prefix=$(field path_prefix)
  IFS= # the pattern is expanded, and not split
  set -- $local
  unset IFS
  for match; do
    rest=${match#"$root"} && rest=${rest#"$prefix"}
    send_tree "${url%/}/$(encoded "${rest#/}")" "$match" "${match#"$root"}"
  done
}

send_tree() { # url local path
  if [ -L "$2" ]; then
    case $(realpath -e -- "$2" 2>/dev/null) in
      "$root"/*) [ ! -d "$2" ] || { warn "$3 is a link to a directory; not followed" && return; } ;;
      *) warn "$3 leads out of the task's volume; not sent" && return ;;
    esac
  fi
  if [ -d "$2" ]; then
    for entry in "$2"/* "$2"/.[!.]* "$2"/..?*; do
      [ -e "$entry" ] || [ -L "$entry" ] || continue
      send_tree "${1%/}/$(encoded "${entry##*/}")" "$entry" "$3/${entry##*/}"
    done
  elif [ -f "$2" ]; then
    send_file "$1" "$2" "$3"
  elif [ -e "$2" ]; then
    warn "$3 is a special file; not sent"
  else
    warn "$3 was not produced"
  fi
}

send_file() { # url local path
  target=$1
  case $target in
    mem://*) ;;
    http://* | https://*)
      made=${target%"${target#*://*/}"}
      below=${target#"$made"}
      while [ "$below" != "${below#*/}" ]; do
        made=$made${below%%/*}/ below=${below#*/}
        ask "cannot make $(shown "$made")" "$made" "405" -o /dev/null -X MKCOL # 405: it is there
      done
      ask "cannot send $3 to $(shown "$target")" "$target" "" -o /dev/null -T "$2"
      ;;
    *) fail 65 "no way to send to $(shown "$target")" ;;
  esac
  emit --arg u "$target" --arg p "$3" --argjson s "$(stat -c %s -- "$2")" \
    '{event: "output", url: $u, path: $p, size_bytes: $s}'
  count "$2"
}

jq -e '.version == 1' "$POIESIS_WORK_LIST" >/dev/null || fail 65 "this is not a work list of version 1"
for list in inputs outputs; do
  jq -c --arg l "$list" '.[$l][]' "$POIESIS_WORK_LIST" >"$POIESIS_RUN/items"
  while IFS= read -r item <&3; do
    case $list in inputs) stage ;; outputs) send ;; esac
  done 3<"$POIESIS_RUN/items"
done
emit --argjson f "$files" --argjson b "$bytes" '{event: "progress", files: $f, bytes: $b}'
