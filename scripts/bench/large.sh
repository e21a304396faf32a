# shellcheck shell=bash
# Sourced by bench.sh: the same figures on a table of millions of rows (BENCH_LARGE_ROWS, default 5,000,000).
#
# Debezium's snapshot of the table comes first on the topic; the changes of scattered keys follow. A first run loads the
# snapshot, the second, which is measured apart, applies the changes to a copy of that lake. What the same changes cost a
# Python consumer (`large_python`), and how fast the table is read as it is and after `optimize`, stands beside it.

large_rows=${BENCH_LARGE_ROWS:-5000000}

make_large() {
  if [ "${FORCE:-0}" != 1 ] && [ "$(cut -d' ' -f2- "$dir/large.done" 2>/dev/null)" = "$large_rows $events" ]; then return; fi
  rm -rf "$dir/large.done" "$dir/lake-large"
  local name=large$(date +%s)
  start_connect
  new_source
  echo "filling the source with $large_rows rows" >&2
  source_sql -v rows="$large_rows" -f "$here/bench/large.sql" >/dev/null
  start_connector "$name" initial
  await_debezium "$name"
  echo "$name $large_rows $events" >"$dir/large.topic"
  measure_large snapshot "$large_rows" "$dir/lake-large"
  echo "changing $events rows of the source" >&2
  source_sql -c "CALL bench_change($events, $large_rows, 100)" >/dev/null
  await_debezium "$name"
  remove_connector "$name"
  mv "$dir/large.topic" "$dir/large.done"
}

large_topic() { echo "$(cut -d' ' -f1 "$dir/large.topic" 2>/dev/null || cut -d' ' -f1 "$dir/large.done").public.orders"; }

large_settings() { # lake
  cat <<T
[pipeline]
name = "bench-large"
[kafka]
bootstrap_servers = "127.0.0.1:$kafka"
topics = ["$(large_topic)"]
[admin]
listen = ""
[lake]
uri = "$1"
raw_table = ""
T
  order_types
}

# Runs until caught up, and prints the line.
measure_large() { # what, events, lake
  local log=$dir/large-$1.log load
  large_settings "$3" >"$dir/large.toml"
  load=$(cut -d' ' -f1 /proc/loadavg)
  "$alluvium" run --config "$dir/large.toml" --until-caught-up --log-format json 2>"$log" || { tail -5 "$log" >&2; exit 1; }
  line "$1" "$2" "$(figure seconds "$log")" "$(figure peak_memory_mib "$log")" "$load"
}

run_large() {
  make_large
  for _ in $(seq "$repeats"); do
    rm -rf "$dir/lake-large-run"
    cp -a "$dir/lake-large" "$dir/lake-large-run"
    measure_large large $events "$dir/lake-large-run"
    local expected got
    expected=$(source_sql -c "SELECT count(*), sum(order_id), sum(amount) FROM orders" | tr '|' ' ')
    got=$(ask "$dir/large.toml" "SELECT count(*), sum(order_id), sum(amount) FROM orders" | tr ',' ' ')
    [ "$got" = "$expected" ] || { echo "large differs from the source: expected $expected, found $got" >&2; exit 1; }
  done
  scan "as written"
  "$alluvium" optimize --config "$dir/large.toml" orders >/dev/null 2>&1
  scan "after optimize"
}

# Time of a full scan, the best of three.
scan() { # state of the table
  local best=999999 started
  for _ in 1 2 3; do
    started=$EPOCHREALTIME
    ask "$dir/large.toml" "SELECT sum(customer_id), sum(amount), max(note), max(updated_at) FROM orders" >/dev/null
    best=$(awk -v a="$started" -v b="$EPOCHREALTIME" -v best="$best" 'BEGIN { t = b - a; print (t < best ? t : best) }')
  done
  printf 'scan           %7.2f s  %s\n' "$best" "$1"
}

# The first of the same changes by a Python consumer, one MERGE for each 10,000 events, into a table of the same rows.
large_python() {
  make_large
  local load log=$dir/python-large.log
  rm -rf "$dir/lake-python"
  "$here/stack/python.sh" "$here/bench/orders.py" "$dir/lake-large/orders" "$dir/lake-python"
  load=$(cut -d' ' -f1 /proc/loadavg)
  "$here/stack/python.sh" "$here/bench/python_merge.py" "127.0.0.1:$kafka" "$(large_topic)" "$dir/lake-python" "$large_rows" 5 >"$log"
  line python-large "$(figure events "$log")" "$(figure seconds "$log")" "$(figure peak_memory_mib "$log")" "$load"
  printf 'python-large   %7.2f s  the median MERGE\n' "$(figure merge_seconds "$log")"
}
