#!/usr/bin/env bash
# Shows whether the Debezium connector runs, its replication slot, and the topics it writes.
#
#   scripts/check-connector.sh [NAME]     default: postgres-source-connector
#
# Exit code 0: the connector and its task run; 1: they do not, and the reason is shown.
# Environment: CONNECT_URL   default http://localhost:8083
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) help; exit 0 ;; esac
need curl "Install it (Debian: apt-get install curl)."
name=${1:-$CONNECTOR} url=${CONNECT_URL:-http://localhost:$CONNECT_PORT}

curl -fsS -m 10 -o /dev/null "$url/connectors" ||
  die "Kafka Connect does not answer at $url: scripts/start.sh starts it, scripts/logs.sh connect shows its log"
status=$(curl -fs -m 10 "$url/connectors/$name/status") ||
  die "Kafka Connect has no connector $name; it has: $(curl -fsS "$url/connectors")"

state=$(sed -nE 's/.*"connector":\{"state":"([A-Z_]+)".*/\1/p' <<<"$status")
task=$(sed -nE 's/.*"tasks":\[\{[^]]*"state":"([A-Z_]+)".*/\1/p' <<<"$status")
echo "connector  $name: ${state:-unknown}"
echo "task       ${task:-none}"
if [ "$state" != RUNNING ] || [ "$task" != RUNNING ]; then
  sed -nE 's/.*"trace":"(([^"\\]|\\.)*)".*/\1/p' <<<"$status" | sed -e 's/\\n/\n/g' -e 's/\\t/  /g' | head -n 20
  die "the connector does not run; after mending the cause: curl -X POST '$url/connectors/$name/restart?includeTasks=true&onlyFailed=true'"
fi
echo "slot       $(sql source -At -F ' ' -c "
  SELECT slot_name, CASE WHEN active THEN 'active' ELSE 'not active' END,
         'not yet confirmed: ' || pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn))
  FROM pg_replication_slots")"
echo "topics"
curl -fsS "$url/connectors/$name/topics" | grep -o '"[^"]*\.[^"]*"' | tr -d '"' | sort | sed 's/^/  /'
