#!/usr/bin/env bash
# One Kafka Connect worker with Debezium's Postgres connector, as a plain process.
#
#   scripts/stack/connect.sh start DIR PORT BOOTSTRAP   returns when its REST interface answers on 127.0.0.1:PORT;
#                                                       BOOTSTRAP is Kafka's HOST:PORT
#   scripts/stack/connect.sh stop DIR                   SIGTERM, and waits
#   scripts/stack/connect.sh kill DIR                   SIGKILL, as a crash
#
# DIR holds connect.pid, connect.log and the settings; connectors and their offsets live in Kafka.
# Environment: CONNECT_HEAP_OPTS    default -Xmx400m
#              CONNECT_GROUP        names the worker's group and its topics, default connect
#              CONNECT_PROPERTIES   further worker settings, one a line
#              STACK_TIMEOUT        seconds to wait for the start, default 60
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

write_settings() {
  local group=${CONNECT_GROUP:-connect}
  cat >"$dir/connect.properties" <<P
bootstrap.servers=$bootstrap
group.id=$group
config.storage.topic=$group-configs
offset.storage.topic=$group-offsets
status.storage.topic=$group-status
config.storage.replication.factor=1
offset.storage.replication.factor=1
status.storage.replication.factor=1
offset.storage.partitions=1
status.storage.partitions=1
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
listeners=http://127.0.0.1:$port
rest.advertised.host.name=127.0.0.1
rest.advertised.port=$port
# Everything is on the class path, and every plugin declares itself: no scan of all jars.
plugin.discovery=service_load
offset.flush.interval.ms=5000
# One worker: after a crash its successor gets the tasks at once, not after five minutes.
scheduled.rebalance.max.delay.ms=0
session.timeout.ms=6000
heartbeat.interval.ms=2000
${CONNECT_PROPERTIES:-}
P
}

start() {
  local pid
  if pid=$(live_pid "$dir/connect.pid" "$dir"); then
    say "connect is already running (pid $pid, $dir)"
    return
  fi
  need_jars
  need curl "Install it (Debian: apt-get install curl)."
  mkdir -p "$dir"
  check_port "$port" "Kafka Connect"
  write_settings
  # shellcheck disable=SC2086
  spawn "$dir/connect.pid" "$dir/connect.log" "$(java_command)" ${CONNECT_HEAP_OPTS:--Xmx400m} \
    -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$STACK_SCRIPTS/log4j2.properties" \
    -cp "$STACK_LIB/*" org.apache.kafka.connect.cli.ConnectDistributed "$dir/connect.properties"
  pid=$(cat "$dir/connect.pid")
  # /health answers 200 only when the worker has joined its group and read its topics.
  await "Kafka Connect" "$pid" "$dir/connect.log" "${STACK_TIMEOUT:-60}" curl -fs -m 5 "http://127.0.0.1:$port/health"
  say "connect answers on http://127.0.0.1:$port (pid $pid)"
}

case ${1:-} in
  -h | --help) help; exit 0 ;;
  start) [ $# = 4 ] || die "usage: connect.sh start DIR PORT BOOTSTRAP" ;;
  stop | kill) [ $# -ge 2 ] || die "usage: connect.sh $1 DIR" ;;
  *) die "start, stop or kill? (see --help)" ;;
esac
dir=$(realpath -m "$2") port=${3:-} bootstrap=${4:-}
case $1 in
  start) start ;;
  stop) end_process connect "$dir/connect.pid" "$dir" 30 ;;
  kill) end_process connect "$dir/connect.pid" "$dir" 10 KILL ;;
esac
