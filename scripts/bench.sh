#!/usr/bin/env bash
# Measures Alluvium's speed on the real path: a real Postgres, Debezium and Kafka, the release binary.
#
#   scripts/bench.sh [MEASUREMENT...]     default: all
#
# decode          events a second of one core, from JSON to Arrow, with and without schema block
# raw             the raw table alone, from the broker: events a second, peak memory
# mirror          a Postgres mirror alone, beside COPY and upsert of the same rows by psql
# current         the current table alone
# upsert          batches of 10,000 changes into tables of 100,000 to 10 million rows, and by the Delta library's MERGE
# large           a snapshot of 5 million rows, then changes of scattered keys; a full scan as it is, and after optimize
#
# What its users run in place of Alluvium, on the same events (peers: all of them; python: the first three):
# python-raw      beside raw: a Python consumer with the `deltalake` package, appends of 20,000 events
# python-current  beside current: the same, one MERGE for each 10,000 events
# python-large    beside large: the same MERGE for the first five times 10,000 of those changes
# spark-current   beside current: Spark Structured Streaming, foreachBatch with one MERGE for each 20,000 messages; one
#                 run, of which the first BENCH_SPARK_SECONDS count (with its first batch, which is slow). It fetches 450 MB once
#
# The workload is made once and kept (440,000 events of 670 B: 200,000 inserts, 200,000 updates and 40,000 deletes of
# scattered keys, one partition, and as many tombstones as deletes); FORCE=1 makes it anew. Results go to standard output, one line
# each; all but those of python-large are compared with the source. Alluvium's seconds count from the start of the process,
# those of the others from their first contact with the broker. Nothing else should run meanwhile: the load is printed
# with them.
# Environment: ALLUVIUM_BENCH_DIR   state, default /var/tmp/alluvium-bench
#              ALLUVIUM_BIN         the binary, default: built with cargo; decode and upsert are always built
#              BENCH_REPEATS        runs of each, default 3
#              BENCH_EVENTS         size of the workload, default 440000; less is for trying the script, not for figures
#              BENCH_LARGE_ROWS     rows of the large table, default 5000000
#              BENCH_SPARK_SECONDS  default 300
#              KEEP=1               leaves the stack running
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stack/lib.sh"
measurements="decode raw mirror current upsert large python-raw python-current python-large spark-current" wanted=
for argument in "${@:-all}"; do
  case $argument in
    -h | --help) help; exit 0 ;;
    all) wanted+=" $measurements" ;;
    peers) wanted+=" python-raw python-current python-large spark-current" ;;
    python) wanted+=" python-raw python-current python-large" ;;
    *) [[ " $measurements " == *" $argument "* ]] || die "unknown measurement '$argument' (see --help)"
      wanted+=" $argument" ;;
  esac
done
wants() { # any of these
  local measurement
  for measurement in "$@"; do [[ "$wanted " != *" $measurement "* ]] || return 0; done
  return 1
}
dir=${ALLUVIUM_BENCH_DIR:-/var/tmp/alluvium-bench}
repeats=${BENCH_REPEATS:-3}
kafka=29192 connect=28083 postgres=25433
events=${BENCH_EVENTS:-440000}
[[ $events =~ ^[1-9][0-9]*$ ]] || die "BENCH_EVENTS is '$events', which is not a number of events"
deletes=$((events / 11))
updates=$(((events - deletes) / 2))
inserts=$((events - deletes - updates))
. "$here/bench/stack.sh"
. "$here/bench/large.sh"
. "$here/bench/peers.sh"

make_workload() {
  if [ "${FORCE:-0}" != 1 ] && [ "$(cut -d' ' -f2 "$dir/workload.done" 2>/dev/null)" = "$events" ]; then return; fi
  rm -f "$dir/workload.done"
  start_connect
  new_source
  local name=bench$(date +%s)
  start_connector "$name" no_data
  echo "writing $events changes to the source" >&2
  source_sql -v inserts=$inserts -v updates=$updates -v deletes=$deletes -v txn=100 -f "$here/bench/workload.sql" >/dev/null
  await_debezium "$name"
  remove_connector "$name"
  echo "$name $events" >"$dir/workload.done"
}

workload_topic() { echo "$(cut -d' ' -f1 "$dir/workload.done").public.orders"; }

# Settings of a run: one sink only, a pipeline and a folder of its own.
settings() { # measurement, run
  cat <<T
[pipeline]
name = "bench-$1-$2"
[kafka]
bootstrap_servers = "127.0.0.1:$kafka"
topics = ["$(workload_topic)"]
[admin]
listen = ""
T
  order_types
  case $1 in
    *raw) printf '[lake]\nuri = "%s/lake-%s"\ncurrent_tables = false\n' "$dir" "$1-$2" ;;
    *current) printf '[lake]\nuri = "%s/lake-%s"\nraw_table = ""\n' "$dir" "$1-$2" ;;
    mirror) printf '[lake]\nuri = ""\n[mirrors.target]\nurl = "postgres://postgres@127.0.0.1:%s/bench_target"\n' $postgres ;;
  esac
}

# Runs until caught up, prints the line, and compares with the source.
measure() { # measurement, run
  rm -rf "$dir/lake-$1-$2"
  if [ "$1" = mirror ]; then server_sql -c "DROP DATABASE IF EXISTS bench_target" -c "CREATE DATABASE bench_target"; fi
  settings "$1" "$2" >"$dir/$1.toml"
  local load log=$dir/$1-$2.log done=$events
  load=$(cut -d' ' -f1 /proc/loadavg)
  case $1 in
    python-* | spark-*)
      peer "$1" "$(workload_topic)" "$dir/lake-$1-$2" >"$log"
      done=$(figure events "$log") ;;
    *) "$alluvium" run --config "$dir/$1.toml" --until-caught-up --log-format json 2>"$log" || { tail -5 "$log" >&2; exit 1; } ;;
  esac
  line "$1" "$done" "$(figure seconds "$log")" "$(figure peak_memory_mib "$log")" "$load"
  if [ "$done" = "$events" ]; then check "$1" "$2"; else echo "$1: $done of $events events, so it is not compared" >&2; fi
}

# The last number of that name in a log of JSON lines.
figure() { # name, log
  sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p" "$2" | tail -1
}

line() { # what, events, seconds, memory, load
  awk -v what="$1" -v events="$2" -v seconds="$3" -v memory="$4" -v load="$5" \
    'BEGIN { printf "%-14s %7.2f s  %8.0f events/s  peak %4d MiB  (load before: %s)\n", what, seconds, events / seconds, memory, load }'
}

# The result of the run equals the source.
check() { # measurement, run
  local expected got
  expected=$(source_sql -c "SELECT count(*), sum(order_id), sum(amount) FROM orders" | tr '|' ' ')
  case $1 in
    *raw) expected=$events
      got=$(ask "$dir/$1.toml" "SELECT count(*) FROM (SELECT DISTINCT partition, \"offset\" FROM cdc_events)") ;;
    *current) got=$(ask "$dir/$1.toml" "SELECT count(*), sum(order_id), sum(amount) FROM orders" | tr ',' ' ') ;;
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
    'BEGIN { seconds = ended - started; printf "%-14s %7.2f s  %8.0f rows/s    COPY + upsert of the final rows\n", "psql", seconds, rows / seconds }'
}

build
if wants upsert; then
  ALLUVIUM_FIGURES_ROWS=100000,1000000,5000000,10000000 ALLUVIUM_FIGURES_MERGE=5000000 \
    cargo test --release --locked --lib upserts_by_size_of_the_table -- --ignored --nocapture 2>&1 | grep ' rows: '
fi
if wants decode; then
  cargo build --release --locked --example decode_speed
  for _ in $(seq "$repeats"); do "${CARGO_TARGET_DIR:-target}/release/examples/decode_speed"; done
fi
if wants raw mirror current python-raw python-current spark-current; then
  start_stack
  make_workload
  peers_ready
  for measurement in raw python-raw current python-current mirror; do
    wants $measurement || continue
    for run in $(seq "$repeats"); do measure $measurement "$run"; done
  done
  if wants spark-current; then measure spark-current 1; fi
  if wants mirror; then for _ in $(seq "$repeats"); do by_psql; done; fi
fi
# These take the source database for themselves.
if wants large python-large; then
  start_stack
  source_database=bench_large
  peers_ready
  if wants large; then run_large; fi
  if wants python-large; then large_python; fi
fi
