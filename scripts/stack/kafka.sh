#!/usr/bin/env bash
# One Kafka broker (KRaft, broker and controller in one process), as a plain process.
#
#   scripts/stack/kafka.sh start DIR PORT    returns when the broker answers on 127.0.0.1:PORT
#   scripts/stack/kafka.sh stop DIR          SIGTERM, and waits
#   scripts/stack/kafka.sh kill DIR          SIGKILL, as a crash
#   scripts/stack/kafka.sh tool NAME ARG...  one of Kafka's own tools: topics, console-consumer,
#                                            console-producer, get-offsets, consumer-groups, configs
#
# DIR holds the data, kafka.pid and kafka.log; a second start continues with its data.
# Environment: KAFKA_HEAP_OPTS        default -Xmx400m
#              KAFKA_NUM_PARTITIONS   partitions of topics created by writing to them, default 1
#              KAFKA_CONTROLLER_PORT  default: a free port, chosen once for each DIR
#              KAFKA_PROPERTIES       further broker settings, one a line
#              STACK_TIMEOUT          seconds to wait for the start, default 60
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

run_java() { # class, arguments
  "$(java_command)" "${java_options[@]}" -cp "$STACK_LIB/*" "$@"
}
java_options=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -Dlog4j2.configurationFile="$STACK_SCRIPTS/log4j2.properties")

write_settings() { # port
  local controller=${KAFKA_CONTROLLER_PORT:-} topic_partitions=${KAFKA_NUM_PARTITIONS:-1}
  # A restart keeps the controller's port: it is part of the voters that the broker was formatted with.
  [ -n "$controller" ] || controller=$(sed -n 's/^controller.quorum.voters=1@.*://p' "$dir/server.properties" 2>/dev/null || true)
  [ -n "$controller" ] || controller=$(free_port)
  cat >"$dir/server.properties" <<P
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$1,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$1
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$dir/data
num.partitions=$topic_partitions
auto.create.topics.enable=true
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# After a crash the broker may come back only when the session of its former life has ended.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=1000
${KAFKA_PROPERTIES:-}
P
}

start() {
  local pid
  if pid=$(live_pid "$dir/kafka.pid" "$dir"); then
    say "kafka is already running (pid $pid, $dir)"
    return
  fi
  need_jars
  mkdir -p "$dir"
  check_port "$port" Kafka
  write_settings "$port"
  if [ ! -e "$dir/data/meta.properties" ]; then
    # The cluster's id is new for each DIR: Alluvium tells by it that this is not the cluster it has read from.
    run_java kafka.tools.StorageTool format -t "$(head -c 16 /dev/urandom | base64 | tr '+/' 'xy' | tr -d '=')" \
      -c "$dir/server.properties" >"$dir/format.log" 2>&1 || {
      tail -n 10 "$dir/format.log" >&2
      die "Kafka's storage in $dir/data could not be formatted (see above)"
    }
  fi
  # shellcheck disable=SC2086
  spawn "$dir/kafka.pid" "$dir/kafka.log" "$(java_command)" ${KAFKA_HEAP_OPTS:--Xmx400m} "${java_options[@]}" \
    -cp "$STACK_LIB/*" kafka.Kafka "$dir/server.properties"
  pid=$(cat "$dir/kafka.pid")
  await Kafka "$pid" "$dir/kafka.log" "${STACK_TIMEOUT:-60}" grep -q 'Kafka Server started' "$dir/kafka.log"
  say "kafka answers on 127.0.0.1:$port (pid $pid)"
}

tool() {
  local name=${1:-} class
  case $name in
    topics) class=org.apache.kafka.tools.TopicCommand ;;
    configs) class=kafka.admin.ConfigCommand ;;
    get-offsets) class=org.apache.kafka.tools.GetOffsetShell ;;
    consumer-groups) class=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
    console-consumer) class=org.apache.kafka.tools.consumer.ConsoleConsumer ;;
    console-producer) class=org.apache.kafka.tools.ConsoleProducer ;;
    *) die "unknown tool '$name' (see --help)" ;;
  esac
  shift
  need_jars
  java_options+=(-Dstack.log.level=WARN)
  run_java "$class" "$@"
}

case ${1:-} in
  -h | --help) help; exit 0 ;;
  tool) shift; tool "$@"; exit ;;
  start) [ $# = 3 ] || die "usage: kafka.sh start DIR PORT" ;;
  stop | kill) [ $# -ge 2 ] || die "usage: kafka.sh $1 DIR" ;;
  *) die "start, stop, kill or tool? (see --help)" ;;
esac
dir=$(realpath -m "$2") port=${3:-}
case $1 in
  start) start ;;
  stop) end_process kafka "$dir/kafka.pid" "$dir" 30 ;;
  kill) end_process kafka "$dir/kafka.pid" "$dir" 10 KILL ;;
esac
