#!/usr/bin/env bash
# Registers a connector with Kafka Connect, or updates it, and returns when its task runs.
#
#   scripts/stack/register-connector.sh CONNECT_URL FILE [NAME]
#
# FILE is the connector's configuration (a flat JSON object); NAME is by default the file's name without .json.
# Environment: STACK_TIMEOUT   seconds to wait for the task, default 60
#
# Also runs inside the Connect image, so it needs only bash and curl.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
[ $# -ge 2 ] || { echo "usage: register-connector.sh CONNECT_URL FILE [NAME]" >&2; exit 1; }
url=${1%/} file=$2 name=${3:-$(basename "$2" .json)}

# The answer repeats the password, so it is shown only when it is an error.
if ! answer=$(curl -sS --fail-with-body -X PUT -H 'Content-Type: application/json' --data @"$file" \
  "$url/connectors/$name/config" 2>&1); then
  echo "Kafka Connect at $url refuses the connector $name: $answer" >&2
  exit 1
fi

deadline=$((SECONDS + ${STACK_TIMEOUT:-60})) status=
while [ $SECONDS -lt "$deadline" ]; do
  # Not found for a moment after the PUT.
  status=$(curl -fs "$url/connectors/$name/status" || true)
  case $status in
    *'"tasks":[{'*FAILED*) printf 'the task of connector %s failed: %b\n' "$name" "$status" >&2; exit 1 ;;
    *'"tasks":[{'*RUNNING*) echo "connector $name runs" >&2; exit 0 ;;
  esac
  sleep 0.3
done
echo "the connector $name does not run after ${STACK_TIMEOUT:-60} s: $status" >&2
exit 1
