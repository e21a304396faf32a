# shellcheck shell=bash disable=SC2034
# Sourced by the scripts in this folder: the stack's addresses, and where it runs.
PROJECT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$PROJECT/scripts/stack/lib.sh"

export SOURCE_PORT=${SOURCE_PORT:-5433} DATALAKE_PORT=${DATALAKE_PORT:-5434} TARGET_PORT=${TARGET_PORT:-5435}
export KAFKA_PORT=${KAFKA_PORT:-29092} CONNECT_PORT=${CONNECT_PORT:-8083} ALLUVIUM_PORT=${ALLUVIUM_PORT:-8090}
CONNECTOR=postgres-source-connector
CONFIG=$PROJECT/examples/stack/alluvium.toml

# Where the native stack keeps its data: .native in the project, or, where Postgres' own user cannot enter the
# project (a checkout below /root), a folder in /var/tmp.
native_folder() {
  if [ -n "${ALLUVIUM_NATIVE_DIR:-}" ]; then
    realpath -m "$ALLUVIUM_NATIVE_DIR"
  elif is_root && id postgres >/dev/null 2>&1 && ! runuser -u postgres -- test -x "$PROJECT"; then
    echo /var/tmp/alluvium-native
  else
    echo "$PROJECT/.native"
  fi
}
NATIVE=$(native_folder)

compose() { docker compose --project-directory "$PROJECT" -f "$PROJECT/docker-compose.yml" "$@"; }

native_runs() { live_pid "$NATIVE/kafka/kafka.pid" "$NATIVE/kafka" >/dev/null; }

compose_runs() {
  command -v docker >/dev/null && [ -n "$(compose ps -q kafka 2>/dev/null)" ]
}

# native or compose, whichever runs; ALLUVIUM_STACK decides where both might.
stack_kind() {
  case ${ALLUVIUM_STACK:-} in
    native | compose) echo "$ALLUVIUM_STACK" ;;
    '') if native_runs; then echo native; elif compose_runs; then echo compose; else
      die "no stack is running: start it with scripts/start.sh (containers) or scripts/start.sh --native (plain processes)"
    fi ;;
    *) die "ALLUVIUM_STACK is '$ALLUVIUM_STACK'; it must be native or compose" ;;
  esac
}

# psql in one of the three databases, with its owner's rights: sql source -c 'SELECT …'
sql() { # source | datalake | target, psql's arguments
  local name=$1 port
  shift
  if [ "${STACK:=$(stack_kind)}" = compose ]; then
    compose exec -T "postgres-$name" psql -X -q -v ON_ERROR_STOP=1 -U "${name}_user" -d "${name}_db" "$@"
    return
  fi
  case $name in source) port=$SOURCE_PORT ;; datalake) port=$DATALAKE_PORT ;; target) port=$TARGET_PORT ;; esac
  PGPASSWORD=${name}_password psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U "${name}_user" -d "${name}_db" "$@"
}

# The program on this machine: ALLUVIUM_BIN, or what cargo has built.
alluvium_binary() {
  local binary=${ALLUVIUM_BIN:-${CARGO_TARGET_DIR:-$PROJECT/target}/release/alluvium}
  [ -x "$binary" ] || return 1
  realpath "$binary"
}

# The example configuration names the default ports and folder; other ones are told to alluvium by its environment.
export_addresses() {
  [ "$NATIVE" = "$PROJECT/.native" ] || export ALLUVIUM__LAKE__URI=$NATIVE/lake
  [ "$KAFKA_PORT" = 29092 ] || export ALLUVIUM__KAFKA__BOOTSTRAP_SERVERS=localhost:$KAFKA_PORT
  [ "$DATALAKE_PORT" = 5434 ] ||
    export ALLUVIUM__MIRRORS__DATALAKE__URL=postgres://datalake_user:datalake_password@localhost:$DATALAKE_PORT/datalake_db
  [ "$TARGET_PORT" = 5435 ] ||
    export ALLUVIUM__MIRRORS__TARGET__URL=postgres://target_user:target_password@localhost:$TARGET_PORT/target_db
  [ "$ALLUVIUM_PORT" = 8090 ] || export ALLUVIUM__ADMIN__LISTEN=127.0.0.1:$ALLUVIUM_PORT
}
