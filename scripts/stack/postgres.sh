#!/usr/bin/env bash
# One Postgres server with logical replication, as a plain process, reached through TCP only.
#
#   scripts/stack/postgres.sh start DIR PORT    creates the database cluster the first time; returns when the
#                                               server answers on 127.0.0.1:PORT
#   scripts/stack/postgres.sh stop DIR          fast shutdown: sessions are ended, data is written
#   scripts/stack/postgres.sh kill DIR          immediate shutdown, as a crash
#   scripts/stack/postgres.sh restart DIR PORT
#
# Postgres refuses to run as root: called by root, it runs as the system's user postgres, who must be able to
# reach DIR. DIR holds data/, postgres.pid and postgres.log.
# Environment, the first four for the first start only, the others at every start (the first three named as the container
# image names them):
#   POSTGRES_USER      superuser, default postgres
#   POSTGRES_PASSWORD  without one, everybody on the loopback address is trusted
#   POSTGRES_DB        database to create, default: named as the user
#   POSTGRES_INIT      SQL file to run in it once
#   POSTGRES_FSYNC     off: faster, and a crash of the machine loses data (default on)
#   POSTGRES_SETTINGS  further lines of postgresql.conf
#   POSTGRES_BIN       folder of initdb, pg_ctl and postgres
#   STACK_TIMEOUT      seconds to wait for the start, default 60
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$STACK_SCRIPTS/postgres-programs.sh"

as_postgres() {
  if is_root; then
    # From /: the server's user may not be allowed to enter the caller's folder.
    (cd / && runuser -u postgres -- "$@")
  else
    "$@"
  fi
}

prepare_folder() {
  if is_root; then
    id postgres >/dev/null 2>&1 || die "there is no user 'postgres' to run the server as: run $STACK_SCRIPTS/install.sh"
    mkdir -p "$dir"
    as_postgres test -x "$dir" || die "the user postgres cannot reach $dir: choose a folder whose parents everybody may enter, such as /var/tmp/NAME"
    install -d -o postgres -g postgres -m 700 "$data"
    touch "$dir/postgres.log"
    chown postgres "$dir/postgres.log"
  else
    mkdir -p "$dir"
    install -d -m 700 "$data"
  fi
}

write_settings() { # port; read by postgresql.conf's last line
  local file=$dir/postgres.settings sync=${POSTGRES_FSYNC:-on}
  cat >"$file" <<P
port = $1
listen_addresses = '127.0.0.1'
# Sockets of servers on one machine would meet in one folder; TCP is enough.
unix_socket_directories = ''
wal_level = logical
max_replication_slots = 100
max_wal_senders = 100
max_connections = 200
shared_buffers = 64MB
fsync = $sync
full_page_writes = $sync
synchronous_commit = $sync
${POSTGRES_SETTINGS:-}
P
  chmod 644 "$file"
  cp "$file" "$data/alluvium.conf.new" && mv "$data/alluvium.conf.new" "$data/alluvium.conf" && rm "$file"
  if is_root; then chown postgres "$data/alluvium.conf"; fi
}

create_cluster() {
  local user=${POSTGRES_USER:-postgres} options=(-D "$data" -U "${POSTGRES_USER:-postgres}" -E UTF8 --locale=C)
  if [ -n "${POSTGRES_PASSWORD:-}" ]; then
    local password_file=$dir/initdb.password
    (umask 077 && printf '%s\n' "$POSTGRES_PASSWORD" >"$password_file")
    if is_root; then chown postgres "$password_file"; fi
    options+=(-A scram-sha-256 --pwfile="$password_file")
  else
    options+=(-A trust)
  fi
  [ "${POSTGRES_FSYNC:-on}" = on ] || options+=(--no-sync)
  local failed=0
  as_postgres "$bin/initdb" "${options[@]}" >"$dir/initdb.log" 2>&1 || failed=1
  rm -f "${password_file:-}"
  if [ $failed = 1 ]; then
    tail -n 15 "$dir/initdb.log" >&2
    die "initdb failed for $user in $data (see above)"
  fi
  echo "include 'alluvium.conf'" >>"$data/postgresql.conf"
}

first_database() {
  local user=${POSTGRES_USER:-postgres} database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
  local psql=(psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U "$user")
  export PGPASSWORD=${POSTGRES_PASSWORD:-}
  need psql "Run $STACK_SCRIPTS/install.sh."
  if [ "$database" != postgres ]; then
    "${psql[@]}" -d postgres -v name="$database" <<<'CREATE DATABASE :"name"' || return 1
  fi
  [ -z "${POSTGRES_INIT:-}" ] || "${psql[@]}" -d "$database" -f "$POSTGRES_INIT" >"$dir/init.log" || return 1
}

start() {
  local pid
  if pid=$(live_pid "$data/postmaster.pid" "$dir"); then
    echo "$pid" >"$dir/postgres.pid"
    say "postgres is already running (pid $pid, $dir)"
    return
  fi
  check_port "$port" Postgres
  prepare_folder
  # A first start that was cut off leaves no half-made database behind.
  if [ ! -e "$dir/created" ] && [ -e "$data/PG_VERSION" ]; then find "$data" -mindepth 1 -delete; fi
  [ -e "$data/PG_VERSION" ] || create_cluster
  write_settings "$port"
  [ ! -s "$dir/postgres.log" ] || { cp "$dir/postgres.log" "$dir/postgres.log.old" && : >"$dir/postgres.log"; }
  # setsid: an interrupt at the caller's terminal is not meant for the server.
  if ! as_postgres setsid -w "$bin/pg_ctl" -s -w -t "${STACK_TIMEOUT:-60}" -D "$data" -l "$dir/postgres.log" start </dev/null; then
    tail -n 15 "$dir/postgres.log" >&2
    die "Postgres does not start (see above, and $dir/postgres.log)"
  fi
  head -n 1 "$data/postmaster.pid" >"$dir/postgres.pid"
  if [ ! -e "$dir/created" ]; then
    first_database || {
      stop fast
      die "the first database could not be set up (see above)"
    }
    touch "$dir/created"
  fi
  say "postgres answers on 127.0.0.1:$port (pid $(cat "$dir/postgres.pid"))"
}

stop() { # fast | immediate
  if ! live_pid "$data/postmaster.pid" "$dir" >/dev/null; then
    rm -f "$dir/postgres.pid"
    say "postgres is not running"
    return
  fi
  as_postgres "$bin/pg_ctl" -s -w -t 60 -D "$data" -m "$1" stop || die "Postgres does not stop; see $dir/postgres.log"
  rm -f "$dir/postgres.pid"
  say "postgres stopped"
}

case ${1:-} in
  -h | --help) help; exit 0 ;;
  start | restart) [ $# = 3 ] || die "usage: postgres.sh $1 DIR PORT" ;;
  stop | kill) [ $# -ge 2 ] || die "usage: postgres.sh $1 DIR" ;;
  *) die "start, stop, kill or restart? (see --help)" ;;
esac
dir=$(realpath -m "$2") port=${3:-}
data=$dir/data
bin=$(postgres_bin) || die "no Postgres server programs found: run $STACK_SCRIPTS/install.sh, or set POSTGRES_BIN"
case $1 in
  start) start ;;
  stop) stop fast ;;
  kill) stop immediate ;;
  restart) stop fast && start ;;
esac
