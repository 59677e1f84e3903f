#!/bin/bash
# Keep the roles and the certificate of the embedded Postgres as the Secrets of the release state them. Runs beside
# Postgres in its Pod and reaches it by the Unix socket, as the superuser, who has no password and cannot log in otherwise.
#
# A changed Secret arrives as changed files. The passwords in Postgres are compared, too: something else may set them.
set -euo pipefail

secrets="${POIESIS_SECRETS:-/etc/poiesis-postgres}"
sql="${POIESIS_SQL:-/etc/poiesis-roles}"
ready="${POIESIS_READY:-/tmp/ready}"
database=poiesis
owner=poiesis
poll_seconds=2  # between two looks at the files, which start no program
verify_every=15 # of these looks, one also at Postgres

log() { printf 'roles: %s\n' "$*" >&2; }

query() { # user, further arguments of psql
    local user="$1"
    shift
    psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 --set VERBOSITY=terse \
        --username "$user" --dbname "$database" "$@"
}

password_of() { # key: prints the password of the connection URL in a file
    local url
    url="$(<"$secrets/$1")"
    if [[ ! "$url" =~ ^postgres(ql)?://[^:@/]+:([A-Za-z0-9._~-]+)@ ]]; then
        log "the password in $1 must consist of letters, digits and . _ ~ -"
        return 1
    fi
    printf '%s' "${BASH_REMATCH[2]}"
}

files() { # prints what Postgres must follow
    local file
    for file in migrations-dsn api-dsn recorder-dsn tls/tls.crt tls/tls.key; do
        printf '%s\n' "$(<"$secrets/$file")"
    done
}

is_superuser() { # user
    [[ "$(query "$1" --command "SELECT rolsuper FROM pg_roles WHERE rolname = current_user" 2>/dev/null)" == t ]]
}

# Data directories of earlier charts have the owner as the superuser that initdb made. That one cannot lose its rights,
# so it gets another name, and the owner becomes a new role.
convert() {
    log "converting a data directory in which $owner is the superuser"
    query "$owner" --file "$sql/before-conversion.sql" && query poiesis_conversion --file "$sql/conversion.sql"
}

apply() {
    if ! is_superuser postgres; then
        if ! is_superuser "$owner"; then
            return 1 # not yet started, or being initialized
        fi
        convert || return 1
    fi
    local owner_password api_password recorder_password
    owner_password="$(password_of migrations-dsn)" || return 1
    api_password="$(password_of api-dsn)" || return 1
    recorder_password="$(password_of recorder-dsn)" || return 1
    OWNER_PASSWORD="$owner_password" API_PASSWORD="$api_password" RECORDER_PASSWORD="$recorder_password" \
        query postgres --file "$sql/roles.sql" >/dev/null
}

stored() { # prints a digest of the passwords in Postgres
    query postgres --command "SELECT sha256(string_agg(rolpassword, ',' ORDER BY rolname)::bytea) FROM pg_authid
        WHERE rolname IN ('poiesis', 'poiesis_api', 'poiesis_recorder')" 2>/dev/null
}

follow() {
    local wanted applied="" digest="" looks=0 waiting=false
    while true; do
        wanted="$(files)"
        if ((looks % verify_every == 0)) && [[ -n "$applied" && "$(stored)" != "$digest" ]]; then
            log "another program has set passwords, setting those of the Secrets"
            applied=""
        fi
        if [[ "$wanted" != "$applied" ]]; then
            if apply && digest="$(stored)"; then
                # Twice: Postgres may have read the one file before and the other after they changed.
                query postgres --command "SELECT pg_reload_conf()" >/dev/null && pause
                query postgres --command "SELECT pg_reload_conf()" >/dev/null && applied="$wanted"
                : >"$ready"
                log "roles and certificate are those of the Secrets"
                waiting=false
            elif [[ "$waiting" == false ]]; then
                log "Postgres does not accept the roles yet, retrying"
                waiting=true
            fi
        fi
        looks=$((looks + 1))
        pause
    done
}

pause() {
    sleep "$poll_seconds" &
    wait $!
}

trap 'exit 0' TERM INT
export PGHOST="${PGHOST:-/var/run/postgresql}" PGCONNECT_TIMEOUT=10
follow
