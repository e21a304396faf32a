#!/usr/bin/env bash
# Runs the whole path under a steady load, and draws what it cost over time: a real Postgres, Debezium, Kafka and the
# release binary with current tables and the raw table, batches of one second.
#
#   scripts/soak.sh [--events] [SECONDS [EVENTS_PER_SECOND]]     default: 3600 5000
#
#   --events   without Postgres and Debezium: a program writes their events to the broker (bench/events.py). Where the
#              cores are few, the figures then show what Alluvium costs and not who else wants the processor.
#
# The load is one transaction of 50 rows after the other, at a fixed rate: of ten changes eight are updates of scattered
# keys, one inserts, one deletes, so that the table keeps its size (SOAK_ROWS, default 1,000,000). Every ten seconds one
# line goes to DIR/soak.csv; at the end copy and source are compared, and DIR/soak.svg shows the run.
# Environment: ALLUVIUM_SOAK_DIR   state, default /var/tmp/alluvium-soak
#              ALLUVIUM_BIN        the binary, default: built with cargo
#              KEEP=1              leaves the stack running
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/stack/lib.sh"
by_events=0 numbers=()
for argument in "$@"; do
  case $argument in
    -h | --help) help; exit 0 ;;
    --events) by_events=1 ;;
    *) [[ $argument =~ ^[1-9][0-9]*$ ]] && [ ${#numbers[@]} -lt 2 ] || die "unknown argument '$argument' (see --help)"
      numbers+=("$argument") ;;
  esac
done
seconds=${numbers[0]:-3600} rate=${numbers[1]:-5000}
dir=${ALLUVIUM_SOAK_DIR:-/var/tmp/alluvium-soak}
rows=${SOAK_ROWS:-1000000}
kafka=29292 connect=28183 postgres=25533 admin=28190
per_transaction=50
[ "$rate" -ge $per_transaction ] || die "$rate events a second are too few: a transaction has $per_transaction, and one a second is the least"
. "$here/bench/stack.sh"

settings() {
  cat <<T
[pipeline]
name = "soak"
[kafka]
bootstrap_servers = "127.0.0.1:$kafka"
topics = ["$1.public.orders"]
[admin]
listen = "127.0.0.1:$admin"
[lake]
uri = "$dir/lake"
T
  order_types
}

# The load: keys that exist are between the last ones of the sequences `doomed_ids` and `order_ids`, which both move up.
load_script() {
  cat <<'S'
\set first random(1, 1000000)
BEGIN;
INSERT INTO public.orders SELECT nextval('order_ids'), i * 7919 % 5000, 'new', i / 100.0, 'note ' || md5((:first + i)::text), now(), now()
  FROM generate_series(1, 5) i;
UPDATE public.orders o SET status = (ARRAY['paid','packed','shipped','returned','closed'])[1 + order_id % 5],
  amount = amount + 0.01, updated_at = now()
  FROM (SELECT (SELECT last_value FROM order_ids) - 1 - floor(random() * :rows * 0.9)::bigint AS id FROM generate_series(1, 40)) k
  WHERE o.order_id = k.id;
DELETE FROM public.orders WHERE order_id IN (SELECT nextval('doomed_ids') FROM generate_series(1, 5));
COMMIT;
S
}

metric() { # text of /metrics, what its lines begin with; the sum of their values
  awk -v name="$2" 'index($0, name) == 1 { sum += $NF } END { printf "%.3f", sum }' <<<"$1"
}

# Seconds under which 99 of 100 changes were, since the sample before: from the differences of the histogram's buckets.
p99() { # file with the newer buckets, file with the older
  awk 'NR == FNR { before[$1] = $2; next }
    { bound[++n] = $1; count[n] = $2 - before[$1] }
    END {
      wanted = 0.99 * count[n]
      for (i = 1; i <= n && count[n] > 0; i++) {
        if (count[i] >= wanted) {
          low = i > 1 ? bound[i - 1] : 0
          high = bound[i] == "+Inf" ? 2 * low : bound[i]
          under = i > 1 ? count[i - 1] : 0
          share = (wanted - under) / (count[i] - under)
          printf "%.3f", low + (high - low) * share
          exit
        }
      }
    }' "$2" "$1"
}

sample() {
  local text
  text=$(curl -fs "http://127.0.0.1:$admin/metrics") || return 0
  [ ! -e "$dir/buckets.new" ] || mv -f "$dir/buckets.new" "$dir/buckets.old"
  sed -n 's/^alluvium_freshness_seconds_bucket{.*le="\([^"]*\)".*} \(.*\)$/\1 \2/p' <<<"$text" >"$dir/buckets.new"
  local values=(
    "$SECONDS"
    "$([ ! -e "$dir/buckets.old" ] || p99 "$dir/buckets.new" "$dir/buckets.old")"
    "$(metric "$text" 'alluvium_records_total{lane="lake"')"
    "$(metric "$text" 'alluvium_lag_records{')"
    "$(metric "$text" process_resident_memory_bytes | awk '{ printf "%.0f", $1 / 1048576 }')"
    "$(metric "$text" 'alluvium_stage_duration_seconds_count{lane="lake",stage="commit"')"
    "$(metric "$text" 'alluvium_stage_duration_seconds_sum{lane="lake",stage="commit"')"
    "$(metric "$text" 'alluvium_table_live_files{lane="lake",table="public.orders"')"
    "$(metric "$text" 'alluvium_table_live_files{lane="lake",table="cdc_events"')"
    "$(du -sk "$dir/lake/orders/_delta_log" | cut -f1)"
    "$(du -sk "$dir/lake" | cut -f1)"
  )
  (IFS=,; echo "${values[*]}") >>"$dir/soak.csv"
}

daemon='' load=''
clean_up() {
  # shellcheck disable=SC2086
  kill $daemon $load 2>/dev/null || true
  [ "${KEEP:-0}" = 1 ] || stop_stack
}

# Ends the run where nothing that is waited for can come any more: the daemon has ended, or a table has stopped.
need_daemon() {
  local text
  kill -0 "$daemon" 2>/dev/null || { tail -n 5 "$dir/soak.log" >&2; die "the daemon has ended; see above, and $dir/soak.log"; }
  text=$(curl -fs "http://127.0.0.1:$admin/metrics") || return 0
  if [ "$(metric "$text" 'alluvium_table_stopped{')$(metric "$text" 'alluvium_lane_state{lane="lake",state="stopped"')" != 0.0000.000 ]; then
    "$alluvium" status --config "$dir/soak.toml" >&2 || true
    die "a table has stopped; see above"
  fi
}

need_load() { # running, or done
  kill -0 "$load" 2>/dev/null || wait "$load" || die "the load has failed; see the logs in $dir"
}

start_daemon() { # topic prefix
  settings "$1" >"$dir/soak.toml"
  "$alluvium" run --config "$dir/soak.toml" --log-format json 2>"$dir/soak.log" &
  daemon=$!
  until [ "$(metric "$(curl -fs "http://127.0.0.1:$admin/metrics")" 'alluvium_records_total{lane="lake"' | cut -d. -f1)" -ge "$rows" ] 2>/dev/null; do
    need_daemon
    [ -z "$load" ] || need_load
    sleep 1
  done
  echo "the snapshot of $rows rows is in the lake after $SECONDS s" >&2
  echo "seconds,p99,records,lag,memory_mib,commits,commit_seconds,files,raw_files,log_kib,lake_kib" >"$dir/soak.csv"
}

# Samples until the process that makes the load has ended.
watch_load() {
  SECONDS=0
  sample
  while kill -0 "$load" 2>/dev/null; do
    sleep 10
    need_daemon
    sample
  done
  need_load
}

# Waits until the lake stands at this position.
await_position() { # position
  local status
  # The command ends with 1 while the daemon is not ready, which says nothing of the position.
  until status=$("$alluvium" status --config "$dir/soak.toml" --output json | tr -d ' \n') || true
    grep -q "\"position\":$1[^0-9]" <<<"$status"; do
    need_daemon
    sleep 1
  done
}

finish() { # topic, what the table has to hold
  local end got code
  end=$("$here/stack/kafka.sh" tool get-offsets --bootstrap-server "127.0.0.1:$kafka" --topic "$1" | cut -d: -f3)
  await_position "$end"
  kill -TERM "$daemon"
  wait "$daemon" || { code=$?; tail -n 5 "$dir/soak.log" >&2; die "the daemon ended with $code; see above, and $dir/soak.log"; }
  got=$(ask "$dir/soak.toml" "SELECT count(*), sum(order_id), sum(amount) FROM orders")
  [ "$got" = "$2" ] || die "the copy differs from the source: expected $2, found $got"
  echo "copy and source are equal ($got); see $dir/soak.csv"
  "$here/stack/python.sh" "$here/bench/soak_plot.py" "$dir/soak.csv" >"$dir/soak.svg"
  echo "drawn in $dir/soak.svg"
}

by_database() {
  local name=soak$(date +%s)
  start_connect
  new_source
  echo "filling the source with $rows rows" >&2
  source_sql -v rows="$rows" -f "$here/bench/large.sql" >/dev/null
  source_sql -c "CREATE SEQUENCE order_ids START $((rows + 1))" -c "CREATE SEQUENCE doomed_ids START 1"
  start_connector "$name" initial
  start_daemon "$name"
  load_script >"$dir/load.sql"
  pgbench -n --max-tries=10 -c 2 -j 1 -T "$seconds" -R $((rate / per_transaction)) -D rows="$rows" -f "$dir/load.sql" "$(source_url)" >"$dir/pgbench.log" 2>&1 &
  load=$!
  watch_load
  await_debezium "$name"
  finish "$name.public.orders" "$(source_sql -c "SELECT count(*), sum(order_id), sum(amount) FROM orders" | tr '|' ',')"
}

by_events() {
  local name=soak$(date +%s)
  "$here/stack/kafka.sh" tool topics --bootstrap-server "127.0.0.1:$kafka" --create --topic "$name.public.orders" --partitions 1 >/dev/null
  python_client
  "$here/stack/python.sh" "$here/bench/events.py" "127.0.0.1:$kafka" "$name.public.orders" "$rows" "$rate" "$seconds" >"$dir/expected" 2>"$dir/events.log" &
  load=$!
  start_daemon "$name"
  watch_load
  finish "$name.public.orders" "$(cat "$dir/expected")"
}

build
mkdir -p "$dir"
rm -rf "$dir/lake" "$dir/soak.csv" "$dir"/buckets.*
# What draws the run at its end is known to work before it begins.
"$here/stack/install.sh" --python >&2
"$here/stack/python.sh" -c pass
if [ $by_events = 1 ]; then
  trap clean_up EXIT
  "$here/stack/kafka.sh" start "$dir/kafka" "$kafka" >&2
  by_events
else
  start_stack
  trap clean_up EXIT
  by_database
fi
