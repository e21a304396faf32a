# shellcheck shell=bash
# Sourced by bench.sh and soak.sh: a stack of their own (Postgres without fsync, Kafka, Connect with Debezium), the
# source database, and one connector at a time.
#
# The caller sets `here` (the folder scripts/), `dir` (state) and the ports `kafka`, `connect` and `postgres`, and has
# sourced stack/lib.sh.
source_database=bench_source

source_url() { echo "postgres://postgres@127.0.0.1:$postgres/$source_database"; }
source_sql() { psql "$(source_url)" -v ON_ERROR_STOP=1 -qAt "$@"; }
target_sql() { psql "postgres://postgres@127.0.0.1:$postgres/bench_target" -v ON_ERROR_STOP=1 -qAt "$@"; }
server_sql() { psql "postgres://postgres@127.0.0.1:$postgres/postgres" -v ON_ERROR_STOP=1 -qAt "$@"; }

# The program as `alluvium`; the working directory is the project's from here on.
build() {
  if [ -n "${ALLUVIUM_BIN:-}" ]; then
    alluvium=$(realpath -e "$ALLUVIUM_BIN") && [ -x "$alluvium" ] || die "ALLUVIUM_BIN is '$ALLUVIUM_BIN', which is not a program"
    cd "$here/.."
  else
    cd "$here/.."
    alluvium=${CARGO_TARGET_DIR:-target}/release/alluvium
    cargo build --release --locked --bin alluvium
  fi
}

start_stack() {
  mkdir -p "$dir"; chmod 755 "$dir"
  "$here/stack/install.sh" >&2
  POSTGRES_FSYNC=off "$here/stack/postgres.sh" start "$dir/postgres" "$postgres" >&2
  "$here/stack/kafka.sh" start "$dir/kafka" "$kafka" >&2
  [ "${KEEP:-0}" = 1 ] || trap stop_stack EXIT
}

stop_stack() {
  for service in connect kafka postgres; do "$here/stack/$service.sh" stop "$dir/$service" >/dev/null 2>&1 || true; done
}

# An empty source database with the table of orders; its connectors' slots go with it.
new_source() {
  server_sql -c "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '$source_database' AND NOT active" >/dev/null
  server_sql -c "DROP DATABASE IF EXISTS $source_database" -c "CREATE DATABASE $source_database"
  source_sql -c "CREATE TABLE public.orders (order_id bigint PRIMARY KEY, customer_id int, status varchar(20),
    amount numeric(12,2), note text, created_at timestamp, updated_at timestamptz)"
}

start_connect() {
  "$here/stack/connect.sh" start "$dir/connect" "$connect" "127.0.0.1:$kafka" >&2
}

# Registers a connector of that name, which is also the prefix of its topics, and waits until it streams.
start_connector() { # name, snapshot mode
  cat >"$dir/connector.json" <<J
{"connector.class": "io.debezium.connector.postgresql.PostgresConnector", "tasks.max": "1",
 "database.hostname": "127.0.0.1", "database.port": "$postgres", "database.user": "postgres", "database.password": "unused",
 "database.dbname": "$source_database", "topic.prefix": "$1", "slot.name": "$1", "publication.name": "$1",
 "plugin.name": "pgoutput", "publication.autocreate.mode": "filtered", "table.include.list": "public.orders",
 "snapshot.mode": "$2", "decimal.handling.mode": "string", "poll.interval.ms": "100",
 "key.converter": "org.apache.kafka.connect.json.JsonConverter", "key.converter.schemas.enable": "false",
 "value.converter": "org.apache.kafka.connect.json.JsonConverter", "value.converter.schemas.enable": "false",
 "value.converter.replace.null.with.default": "false"}
J
  "$here/stack/register-connector.sh" "http://127.0.0.1:$connect" "$dir/connector.json" "$1"
  until [ "$(server_sql -c "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$1' AND active")" = 1 ]; do sleep 0.2; done
}

# Waits until everything that is in the source now is on Kafka.
await_debezium() { # connector
  local last
  last=$(server_sql -c "SELECT pg_current_wal_lsn()")
  echo "waiting for Debezium to reach $last" >&2
  until [ "$(server_sql -c "SELECT confirmed_flush_lsn >= '$last'::pg_lsn FROM pg_replication_slots WHERE slot_name = '$1'")" = t ]; do
    # A confirmed position moves only with new transactions.
    source_sql -c "SELECT pg_logical_emit_message(true, 'bench', 'nudge')" >/dev/null
    sleep 1
  done
}

remove_connector() { # name
  curl -fsS -X DELETE "http://127.0.0.1:$connect/connectors/$1"
  "$here/stack/connect.sh" stop "$dir/connect" >&2
}

# The types of the orders table, whose events carry no schema.
order_types() {
  cat <<'T'
[[tables]]
source = "public.orders"
types = { order_id = "int64", customer_id = "int32", amount = "decimal_text(12,2)", created_at = "timestamp", updated_at = "timestamptz" }
T
}

# Has the stack's Python know Kafka.
python_client() {
  "$here/stack/python.sh" -c 'import confluent_kafka, orjson' 2>/dev/null ||
    "$here/stack/python.sh" -m pip install -q confluent-kafka orjson
}

# The answer of a query on a lake, as CSV without its header.
ask() { # settings, SQL
  "$alluvium" query --config "$1" "$2" --output csv | tail -1
}
