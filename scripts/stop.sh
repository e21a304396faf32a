#!/usr/bin/env bash
# Stops the stack that scripts/start.sh started, native or in containers. Its data stays, so that a start continues.
#
#   scripts/stop.sh            stop
#   scripts/stop.sh --clean    stop, and delete its databases, topics and lake
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

clean=0
for argument in "$@"; do
  case $argument in
    -h | --help) help; exit 0 ;;
    --clean) clean=1 ;;
    *) die "unknown argument '$argument' (see --help)" ;;
  esac
done

stop_native() {
  local blocks=$PROJECT/scripts/stack name
  "$blocks/connect.sh" stop "$NATIVE/connect"
  "$blocks/kafka.sh" stop "$NATIVE/kafka"
  for name in source datalake target; do "$blocks/postgres.sh" stop "$NATIVE/postgres-$name"; done
  if [ $clean = 1 ]; then
    rm -rf "$NATIVE"/{connect,kafka,postgres-source,postgres-datalake,postgres-target} "$NATIVE/$CONNECTOR.json"
  fi
}

stopped=0
# scripts/run.sh --background: beside either stack.
if [ -e "$NATIVE/alluvium.pid" ]; then
  end_process alluvium "$NATIVE/alluvium.pid" "$PROJECT" 40
  stopped=1
fi
if [ -d "$NATIVE/kafka" ]; then
  stop_native
  stopped=1
fi
if command -v docker >/dev/null && [ -n "$(compose --profile '*' ps -aq 2>/dev/null)" ]; then
  if [ $clean = 1 ]; then compose --profile '*' down -v --remove-orphans; else compose --profile '*' down --remove-orphans; fi
  stopped=1
fi
if [ $clean = 1 ] && [ -d "$NATIVE" ]; then
  # Only what the stack has made; the folder may be one that the user has chosen.
  rm -rf "$NATIVE/lake" "$NATIVE"/alluvium.log*
  rmdir --ignore-fail-on-non-empty "$NATIVE"
  say "deleted its data in $NATIVE"
fi
[ $stopped = 1 ] || say "no stack was found"
