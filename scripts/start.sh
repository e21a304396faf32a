#!/usr/bin/env bash
# Starts the stack: three Postgres, Kafka, Kafka Connect with Debezium, the connector, and Alluvium.
#
#   scripts/start.sh                 in containers (docker compose)
#   scripts/start.sh --native        as plain processes on the same ports
#   options: --no-alluvium           without Alluvium: start it yourself with scripts/run.sh
#            --ui, --monitoring      containers only: with Kafka UI; with Prometheus and Grafana
#
# The first start in containers builds Alluvium's image, with all dependencies at full optimisation (profile dist), which
# takes longer than a build with cargo build --release; ALLUVIUM_IMAGE names an image that is there.
# The native stack runs Alluvium if it has been built (cargo build --release, or ALLUVIUM_BIN names the program).
#
# Ports: source 5433, datalake 5434, target 5435, Kafka 29092, Connect 8083, Alluvium 8090, Kafka UI 8080,
# Prometheus 9090, Grafana 3000; SOURCE_PORT, DATALAKE_PORT, … choose others. ALLUVIUM_NATIVE_DIR is the folder
# of the native stack (default .native). Stop it with scripts/stop.sh.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

native=0 alluvium=1 profiles=()
for argument in "$@"; do
  case $argument in
    -h | --help) help; exit 0 ;;
    --native) native=1 ;;
    --no-alluvium) alluvium=0 ;;
    --ui | --monitoring) profiles+=(--profile "${argument#--}") ;;
    *) die "unknown argument '$argument' (see --help)" ;;
  esac
done

start_postgres() { # name, port
  POSTGRES_USER=$1_user POSTGRES_PASSWORD=$1_password POSTGRES_DB=$1_db \
    POSTGRES_INIT=$PROJECT/init-scripts/$1-init.sql \
    "$blocks/postgres.sh" start "$NATIVE/postgres-$1" "$2"
}

start_native() {
  [ ${#profiles[@]} = 0 ] || die "Kafka UI, Prometheus and Grafana come with containers only"
  compose_runs && die "the stack runs in containers already: stop it with scripts/stop.sh"
  blocks=$PROJECT/scripts/stack
  "$blocks/install.sh" >/dev/null
  mkdir -p "$NATIVE"
  start_postgres source "$SOURCE_PORT"
  start_postgres datalake "$DATALAKE_PORT"
  start_postgres target "$TARGET_PORT"
  "$blocks/kafka.sh" start "$NATIVE/kafka" "$KAFKA_PORT"
  "$blocks/connect.sh" start "$NATIVE/connect" "$CONNECT_PORT" "127.0.0.1:$KAFKA_PORT"
  # The connector as the containers have it, with this machine's address of the source.
  sed -E -e 's/("database\.hostname": *)"[^"]*"/\1"127.0.0.1"/' -e "s/(\"database\.port\": *)\"[^\"]*\"/\1\"$SOURCE_PORT\"/" \
    "$PROJECT/connectors/$CONNECTOR.json" >"$NATIVE/$CONNECTOR.json"
  "$blocks/register-connector.sh" "http://127.0.0.1:$CONNECT_PORT" "$NATIVE/$CONNECTOR.json"
  if [ $alluvium = 1 ]; then
    if alluvium_binary >/dev/null; then
      "$PROJECT/scripts/run.sh" --background
    else
      say "Alluvium is not built yet: scripts/run.sh builds and runs it"
    fi
  fi
}

start_compose() {
  native_runs && die "the stack runs as plain processes already: stop it with scripts/stop.sh"
  need docker "Install Docker with compose v2, or use --native.
  On Debian without an image registry: scripts/compose-local.sh up"
  docker compose version >/dev/null 2>&1 || die "docker has no compose v2 plugin: install it (docker compose version must answer), or use --native"
  docker info >/dev/null 2>&1 || die "the docker engine does not answer: start it, or use --native"
  local services=() code
  if [ $alluvium = 0 ]; then
    services=(postgres-source postgres-datalake postgres-target kafka connect register-connector)
    case "${profiles[*]-}" in *ui*) services+=(kafka-ui) ;; esac
    case "${profiles[*]-}" in *monitoring*) services+=(prometheus grafana) ;; esac
  fi
  compose "${profiles[@]}" up -d "${services[@]}"
  # `up --wait` takes the end of a one-shot service for a failure; `docker wait` knows its exit code, also afterwards.
  code=$(docker wait "$(compose ps -aq register-connector)")
  [ "$code" = 0 ] || compose logs --no-log-prefix --tail 20 register-connector >&2
  [ "$code" = 0 ] || die "the connector could not be registered (see above); scripts/logs.sh connect shows more"
}

runs="not running; start it with scripts/run.sh" query="alluvium query --config examples/stack/alluvium.toml"
[ "$NATIVE" = "$PROJECT/.native" ] || query="$query --set lake.uri=$NATIVE/lake"
if [ $native = 1 ]; then start_native; else start_compose; fi
if live_pid "$NATIVE/alluvium.pid" "$PROJECT" >/dev/null; then
  runs=http://localhost:$ALLUVIUM_PORT/status
elif [ $native = 0 ] && [ $alluvium = 1 ]; then
  runs=http://localhost:$ALLUVIUM_PORT/status query="docker compose exec alluvium alluvium query"
fi
cat >&2 <<P
The stack is up.
  source    psql postgres://source_user:source_password@localhost:$SOURCE_PORT/source_db
  datalake  psql postgres://datalake_user:datalake_password@localhost:$DATALAKE_PORT/datalake_db
  target    psql postgres://target_user:target_password@localhost:$TARGET_PORT/target_db
  Kafka     localhost:$KAFKA_PORT      Connect http://localhost:$CONNECT_PORT
  Alluvium  $runs
  lake      $query 'SELECT count(*) FROM orders'
  try       scripts/test-cdc.sh
P
