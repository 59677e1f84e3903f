#!/bin/bash
# Postgres in a container, told by the variables that the official image knows: POSTGRES_USER, POSTGRES_PASSWORD (or
# their _FILE forms), POSTGRES_DB, POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD, PGDATA; scripts in
# /docker-entrypoint-initdb.d run once. Started as root it becomes the user postgres (999); started as any other user
# it needs a PGDATA that this user may create.
set -euo pipefail

if [[ "${1:-postgres}" == -* ]]; then
    set -- postgres "$@"
fi
if [[ "${1:-postgres}" != postgres ]]; then
    exec "$@"
fi

if [[ "$(id -u)" == 0 ]]; then
    mkdir -p "$PGDATA"
    chown -R postgres:postgres "$PGDATA" /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- "${BASH_SOURCE[0]}" "$@"
fi

from_file() {
    local name="$1" file="$1_FILE"
    if [[ -n "${!file:-}" ]]; then
        export "$name"="$(<"${!file}")"
    fi
}

if [[ ! -s "$PGDATA/PG_VERSION" ]]; then
    from_file POSTGRES_USER
    from_file POSTGRES_PASSWORD
    from_file POSTGRES_DB
    user="${POSTGRES_USER:-postgres}"
    database="${POSTGRES_DB:-$user}"
    method="${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}"
    if [[ -z "${POSTGRES_PASSWORD:-}" && "$method" != trust ]]; then
        echo "POSTGRES_PASSWORD is empty: set it, or POSTGRES_HOST_AUTH_METHOD=trust" >&2
        exit 1
    fi
    mkdir -p "$PGDATA"
    chmod 0700 "$PGDATA"
    password_file="$(mktemp)"
    printf '%s\n' "${POSTGRES_PASSWORD:-}" >"$password_file"
    [[ -n "${POSTGRES_PASSWORD:-}" ]] && password=(--pwfile="$password_file") || password=()
    # shellcheck disable=SC2086  # POSTGRES_INITDB_ARGS holds several words
    initdb --username="$user" "${password[@]}" --encoding=UTF8 --locale=C.UTF-8 \
        --auth-local=trust --auth-host="$method" ${POSTGRES_INITDB_ARGS:-}
    rm "$password_file"
    echo "host all all all $method" >>"$PGDATA/pg_hba.conf"

    socket="$(mktemp -d)"
    pg_ctl --wait start -o "-c listen_addresses='' -c unix_socket_directories=$socket"
    sql=(psql --no-psqlrc --set ON_ERROR_STOP=1 --host "$socket" --username "$user")
    if [[ "$database" != postgres ]]; then
        "${sql[@]}" --dbname postgres --set name="$database" <<<'CREATE DATABASE :"name"'
    fi
    for script in /docker-entrypoint-initdb.d/*; do
        case "$script" in
        *.sh) PGHOST="$socket" PGUSER="$user" PGDATABASE="$database" bash "$script" ;;
        *.sql) "${sql[@]}" --dbname "$database" --file "$script" ;;
        esac
    done
    pg_ctl --wait --mode=fast stop
    rmdir "$socket"
    echo "PostgreSQL init process complete; ready for start up."
fi

exec "$@"
