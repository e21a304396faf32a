#!/usr/bin/env bash
# Measures Alluvium's speed on the real path: a real Postgres, Debezium and Kafka, the release binary.
#
#   scripts/bench.sh [decode] [raw] [mirror] [current] [all]     default: all
#
# decode   events a second of one core, from JSON to Arrow, with and without schema block
# raw      the raw table alone, from the broker: events a second, peak memory
# mirror   a Postgres mirror alone, beside COPY and upsert of the same rows by psql
# current  the current table alone
#
# The workload is made once and kept (440,000 events of 670 B: 200,000 inserts, 200,000 updates and 40,000 deletes of
# scattered keys, one partition, and as many tombstones as deletes); FORCE=1 makes it anew. Results go to standard output, one line
# each. Nothing else should run meanwhile: the load is printed with them.
# Environment: ALLUVIUM_BENCH_DIR   state, default /var/tmp/alluvium-bench
#              ALLUVIUM_BIN         the binary, default: built with cargo
#              BENCH_REPEATS        runs of each, default 3
#              KEEP=1               leaves the stack running
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
case ${1:-} in -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;; esac
dir=${ALLUVIUM_BENCH_DIR:-/var/tmp/alluvium-bench}
repeats=${BENCH_REPEATS:-3}
kafka=29192 connect=28083 postgres=25433
inserts=200000 updates=200000 deletes=40000
events=$((inserts + updates + deletes))
wanted=" ${*:-all} "
wants() { [[ $wanted == *" $1 "* || $wanted == *" all "* ]]; }
source_sql() { psql "postgres://postgres@127.0.0.1:$postgres/bench_source" -v ON_ERROR_STOP=1 -qAt "$@"; }
target_sql() { psql "postgres://postgres@127.0.0.1:$postgres/bench_target" -v ON_ERROR_STOP=1 -qAt "$@"; }
server_sql() { psql "postgres://postgres@127.0.0.1:$postgres/postgres" -v ON_ERROR_STOP=1 -qAt "$@"; }

build() {
  cd "$here/.."
  local target=${CARGO_TARGET_DIR:-target}
  alluvium=${ALLUVIUM_BIN:-$target/release/alluvium}
  decode_speed=$target/release/examples/decode_speed
  [ -n "${ALLUVIUM_BIN:-}" ] || cargo build --release --bin alluvium --example decode_speed
}

start_stack() {
  "$here/stack/install.sh" >&2
  POSTGRES_FSYNC=off "$here/stack/postgres.sh" start "$dir/postgres" $postgres >&2
  "$here/stack/kafka.sh" start "$dir/kafka" $kafka >&2
  [ "${KEEP:-0}" = 1 ] || trap stop_stack EXIT
}

stop_stack() {
  for service in connect kafka postgres; do "$here/stack/$service.sh" stop "$dir/$service" >/dev/null 2>&1 || true; done
}


make_workload() {
  if [ "${FORCE:-0}" != 1 ] && [ -e "$dir/workload.done" ]; then return; fi
  rm -f "$dir/workload.done"
  "$here/stack/connect.sh" start "$dir/connect" $connect "127.0.0.1:$kafka" >&2
  server_sql -c "DROP DATABASE IF EXISTS bench_source" -c "CREATE DATABASE bench_source"
  source_sql -c "CREATE TABLE public.orders (order_id bigint PRIMARY KEY, customer_id int, status varchar(20),
    amount numeric(12,2), note text, created_at timestamp, updated_at timestamptz)"
  local name=bench$(date +%s)
  cat >"$dir/connector.json" <<J
{"connector.class": "io.debezium.connector.postgresql.PostgresConnector", "tasks.max": "1",
 "database.hostname": "127.0.0.1", "database.port": "$postgres", "database.user": "postgres", "database.password": "unused",
 "database.dbname": "bench_source", "topic.prefix": "$name", "slot.name": "$name", "publication.name": "$name",
 "plugin.name": "pgoutput", "publication.autocreate.mode": "filtered", "table.include.list": "public.orders",
 "snapshot.mode": "no_data", "decimal.handling.mode": "string",
 "key.converter": "org.apache.kafka.connect.json.JsonConverter", "key.converter.schemas.enable": "false",
 "value.converter": "org.apache.kafka.connect.json.JsonConverter", "value.converter.schemas.enable": "false",
 "value.converter.replace.null.with.default": "false"}
J
  "$here/stack/register-connector.sh" "http://127.0.0.1:$connect" "$dir/connector.json" "$name"
  until [ "$(server_sql -c "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '$name' AND active")" = 1 ]; do sleep 0.2; done
  echo "writing $events changes to the source" >&2
  source_sql -v inserts=$inserts -v updates=$updates -v deletes=$deletes -v txn=100 -f "$here/bench/workload.sql" >/dev/null
  local end last
  last=$(server_sql -c "SELECT pg_current_wal_lsn()")
  echo "waiting for Debezium to reach $last" >&2
  until [ "$(server_sql -c "SELECT confirmed_flush_lsn >= '$last'::pg_lsn FROM pg_replication_slots WHERE slot_name = '$name'")" = t ]; do
    # A confirmed position moves only with new transactions.
    source_sql -c "SELECT pg_logical_emit_message(true, 'bench', 'nudge')" >/dev/null; sleep 1
  done
  curl -fsS -X DELETE "http://127.0.0.1:$connect/connectors/$name"
  "$here/stack/connect.sh" stop "$dir/connect" >&2
  echo "$name" >"$dir/workload.done"
}

# Settings of a run: one sink only, a pipeline and a folder of its own.
settings() { # sink, run
  local topic; topic=$(cat "$dir/workload.done").public.orders
  cat <<T
[pipeline]
name = "bench-$1-$2"
[kafka]
bootstrap_servers = "127.0.0.1:$kafka"
topics = ["$topic"]
[admin]
listen = ""
[[tables]]
source = "public.orders"
types = { order_id = "int64", customer_id = "int32", amount = "decimal_text(12,2)", created_at = "timestamp", updated_at = "timestamptz" }
T
  case $1 in
    raw) printf '[lake]\nuri = "%s/lake-%s"\ncurrent_tables = false\n' "$dir" "$1-$2" ;;
    current) printf '[lake]\nuri = "%s/lake-%s"\nraw_table = ""\n' "$dir" "$1-$2" ;;
    mirror) printf '[lake]\nuri = ""\n[mirrors.target]\nurl = "postgres://postgres@127.0.0.1:%s/bench_target"\n' $postgres ;;
  esac
}

# Runs until caught up, and prints the line.
measure() { # sink, run
  rm -rf "$dir/lake-$1-$2"
  if [ "$1" = mirror ]; then server_sql -c "DROP DATABASE IF EXISTS bench_target" -c "CREATE DATABASE bench_target"; fi
  settings "$1" "$2" >"$dir/$1.toml"
  local load seconds memory log=$dir/$1-$2.log
  load=$(cut -d' ' -f1 /proc/loadavg)
  "$alluvium" run --config "$dir/$1.toml" --until-caught-up --log-format json 2>"$log" || { tail -5 "$log" >&2; exit 1; }
  seconds=$(sed -n 's/.*"seconds":\([0-9.]*\).*/\1/p' "$log" | tail -1)
  memory=$(sed -n 's/.*"peak_memory_mib":\([0-9]*\).*/\1/p' "$log" | tail -1)
  awk -v what="$1" -v events=$events -v seconds="$seconds" -v memory="$memory" -v load="$load" \
    'BEGIN { printf "%-8s %7.2f s  %8.0f events/s  peak %4d MiB  (load before: %s)\n", what, seconds, events / seconds, memory, load }'
  check "$1" "$2"
}

# The result of the run equals the source.
check() { # sink, run
  local expected got
  expected=$(source_sql -c "SELECT count(*), sum(order_id), sum(amount) FROM orders" | tr '|' ' ')
  case $1 in
    raw) expected=$events
      got=$("$alluvium" query --config "$dir/raw.toml" "SELECT count(*) FROM (SELECT DISTINCT partition, \"offset\" FROM cdc_events)" --output csv | tail -1) ;;
    current) got=$("$alluvium" query --config "$dir/current.toml" "SELECT count(*), sum(order_id), sum(amount) FROM orders" --output csv | tail -1 | tr ',' ' ') ;;
    mirror) got=$(target_sql -c "SELECT count(*), sum(order_id), sum(amount) FROM orders" | tr '|' ' ') ;;
  esac
  [ "$got" = "$expected" ] || { echo "$1 differs from the source: expected $expected, found $got" >&2; exit 1; }
}

# What Postgres itself needs for the final rows by COPY into a staging table and one upsert, 20,000 rows at a time.
by_psql() {
  target_sql -c "DROP TABLE IF EXISTS plain" -c "CREATE TABLE plain (LIKE orders)" -c "ALTER TABLE plain ADD PRIMARY KEY (order_id)"
  rm -f "$dir"/part-*
  target_sql -c "COPY (SELECT * FROM orders ORDER BY md5(order_id::text)) TO STDOUT" | split -l 20000 - "$dir/part-"
  {
    echo "CREATE TEMP TABLE staging (LIKE orders);"
    for part in "$dir"/part-*; do
      printf 'BEGIN;\nTRUNCATE staging;\n\\copy staging from %s\n' "$part"
      echo "INSERT INTO plain SELECT * FROM staging ON CONFLICT (order_id) DO UPDATE SET customer_id = EXCLUDED.customer_id, status = EXCLUDED.status,
        amount = EXCLUDED.amount, note = EXCLUDED.note, created_at = EXCLUDED.created_at, updated_at = EXCLUDED.updated_at; COMMIT;"
    done
  } >"$dir/plain.sql"
  local started=$EPOCHREALTIME
  target_sql -f "$dir/plain.sql" >/dev/null
  awk -v rows="$(target_sql -c "SELECT count(*) FROM plain")" -v started="$started" -v ended="$EPOCHREALTIME" \
    'BEGIN { seconds = ended - started; printf "psql     %7.2f s  %8.0f rows/s    COPY + upsert of the final rows\n", seconds, rows / seconds }'
}

build
if wants decode; then for _ in $(seq "$repeats"); do "$decode_speed"; done; fi
if wants raw || wants mirror || wants current; then
  mkdir -p "$dir"; chmod 755 "$dir"
  start_stack
  make_workload
  for sink in raw current mirror; do
    wants $sink || continue
    for run in $(seq "$repeats"); do measure $sink "$run"; done
  done
  if wants mirror; then for _ in $(seq "$repeats"); do by_psql; done; fi
fi
