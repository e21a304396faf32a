#!/bin/bash
# Turns the environment into connect-distributed.properties and starts the worker.
set -euo pipefail
if [ "${1:-start}" != start ]; then exec "$@"; fi
for name in CONFIG_STORAGE_TOPIC OFFSET_STORAGE_TOPIC; do
  if [ -z "${!name:-}" ]; then echo "$name must be set" >&2; exit 1; fi
done
conf=/kafka/config/connect-distributed.properties
cat > "$conf" <<P
bootstrap.servers=${BOOTSTRAP_SERVERS:-0.0.0.0:9092}
group.id=${GROUP_ID:-1}
config.storage.topic=$CONFIG_STORAGE_TOPIC
offset.storage.topic=$OFFSET_STORAGE_TOPIC
status.storage.topic=${STATUS_STORAGE_TOPIC:-connect-status}
key.converter=${KEY_CONVERTER:-org.apache.kafka.connect.json.JsonConverter}
value.converter=${VALUE_CONVERTER:-org.apache.kafka.connect.json.JsonConverter}
offset.flush.interval.ms=${OFFSET_FLUSH_INTERVAL_MS:-60000}
offset.flush.timeout.ms=${OFFSET_FLUSH_TIMEOUT_MS:-5000}
task.shutdown.graceful.timeout.ms=${SHUTDOWN_TIMEOUT:-10000}
listeners=http://0.0.0.0:${REST_PORT:-8083}
rest.advertised.host.name=${ADVERTISED_HOST_NAME:-$(hostname -i | cut -d' ' -f1)}
rest.advertised.port=${ADVERTISED_PORT:-8083}
plugin.path=${CONNECT_PLUGIN_PATH:-/kafka/connect}
plugin.discovery=service_load
P
# One broker: the internal topics cannot have three replicas. -1 is the broker's default.
for topic in config offset status; do echo "$topic.storage.replication.factor=-1" >> "$conf"; done
while IFS= read -r -d '' pair; do
  case $pair in
    CONNECT_PLUGIN_PATH=* | CONNECT_LOG4J*) ;;
    CONNECT_*)
      key=${pair%%=*}; key=${key#CONNECT_}; key=${key//_/.}
      printf '%s=%s\n' "${key,,}" "${pair#*=}" >> "$conf" ;;
  esac
done < <(env -0)
[ -z "${HEAP_OPTS:-}" ] || export KAFKA_HEAP_OPTS=$HEAP_OPTS
exec /opt/kafka/bin/connect-distributed.sh "$conf"
