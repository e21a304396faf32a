#!/usr/bin/env bash
# Measures Alluvium's speed on the real path: a real Postgres, Debezium and Kafka, the release binary.
#
#   scripts/bench.sh [decode] [raw] [mirror] [current] [upsert] [large] [python] [all]     default: all
#
# decode   events a second of one core, from JSON to Arrow, with and without schema block
# raw      the raw table alone, from the broker: events a second, peak memory
# mirror   a Postgres mirror alone, beside COPY and upsert of the same rows by psql
# current  the current table alone
# upsert   batches of 10,000 changes into tables of 100,000 to 10 million rows, and by the Delta library's MERGE
# large    a snapshot of 5 million rows, then changes of scattered keys; a full scan as it is, and after optimize
# python   what a Python consumer with the `deltalake` package makes of those changes
#
# The workload is made once and kept (440,000 events of 670 B: 200,000 inserts, 200,000 updates and 40,000 deletes of
# scattered keys, one partition, and as many tombstones as deletes); FORCE=1 makes it anew. Results go to standard output, one line
# each. Nothing else should run meanwhile: the load is printed with them.
# Environment: ALLUVIUM_BENCH_DIR   state, default /var/tmp/alluvium-bench
#              ALLUVIUM_BIN         the binary, default: built with cargo; decode and upsert are always built
#              BENCH_REPEATS        runs of each, default 3
#              KEEP=1               leaves the stack running
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stack/lib.sh"
for argument in "$@"; do
  case $argument in
    -h | --help) help; exit 0 ;;
    decode | raw | mirror | current | upsert | large | python | all) ;;
    *) die "unknown measurement '$argument' (see --help)" ;;
  esac
done
dir=${ALLUVIUM_BENCH_DIR:-/var/tmp/alluvium-bench}
repeats=${BENCH_REPEATS:-3}
kafka=29192 connect=28083 postgres=25433
inserts=200000 updates=200000 deletes=40000
events=$((inserts + updates + deletes))
wanted=" ${*:-all} "
wants() { [[ $wanted == *" $1 "* || $wanted == *" all "* ]]; }
. "$here/bench/stack.sh"
. "$here/bench/large.sh"

make_workload() {
  if [ "${FORCE:-0}" != 1 ] && [ -e "$dir/workload.done" ]; then return; fi
  rm -f "$dir/workload.done"
  start_connect
  new_source
  local name=bench$(date +%s)
  start_connector "$name" no_data
  echo "writing $events changes to the source" >&2
  source_sql -v inserts=$inserts -v updates=$updates -v deletes=$deletes -v txn=100 -f "$here/bench/workload.sql" >/dev/null
  await_debezium "$name"
  remove_connector "$name"
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
T
  order_types
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
  local load log=$dir/$1-$2.log
  load=$(cut -d' ' -f1 /proc/loadavg)
  "$alluvium" run --config "$dir/$1.toml" --until-caught-up --log-format json 2>"$log" || { tail -5 "$log" >&2; exit 1; }
  line "$1" $events "$(figure seconds "$log")" "$(figure peak_memory_mib "$log")" "$load"
  check "$1" "$2"
}

# The last number of that name in a log of JSON lines.
figure() { # name, log
  sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p" "$2" | tail -1
}

line() { # what, events, seconds, memory, load
  awk -v what="$1" -v events="$2" -v seconds="$3" -v memory="$4" -v load="$5" \
    'BEGIN { printf "%-8s %7.2f s  %8.0f events/s  peak %4d MiB  (load before: %s)\n", what, seconds, events / seconds, memory, load }'
}

# The result of the run equals the source.
check() { # sink, run
  local expected got
  expected=$(source_sql -c "SELECT count(*), sum(order_id), sum(amount) FROM orders" | tr '|' ' ')
  case $1 in
    raw) expected=$events
      got=$(ask "$dir/raw.toml" "SELECT count(*) FROM (SELECT DISTINCT partition, \"offset\" FROM cdc_events)") ;;
    current) got=$(ask "$dir/current.toml" "SELECT count(*), sum(order_id), sum(amount) FROM orders" | tr ',' ' ') ;;
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
if wants upsert; then
  ALLUVIUM_FIGURES_ROWS=100000,1000000,5000000,10000000 ALLUVIUM_FIGURES_MERGE=5000000 \
    cargo test --release --locked --lib upserts_by_size_of_the_table -- --ignored --nocapture 2>&1 | grep ' rows: '
fi
if wants decode; then
  cargo build --release --locked --example decode_speed
  for _ in $(seq "$repeats"); do "${CARGO_TARGET_DIR:-target}/release/examples/decode_speed"; done
fi
if wants raw || wants mirror || wants current; then
  start_stack
  make_workload
  for sink in raw current mirror; do
    wants $sink || continue
    for run in $(seq "$repeats"); do measure $sink "$run"; done
  done
  if wants mirror; then for _ in $(seq "$repeats"); do by_psql; done; fi
fi
# These take the source database for themselves.
if wants large || wants python; then
  start_stack
  source_database=bench_large
  if wants python; then "$here/stack/install.sh" --python >&2; fi
  if wants large; then run_large; fi
  if wants python; then large_python; fi
fi
