#!/usr/bin/env bash
# Shows the logs of the running stack.
#
#   scripts/logs.sh [-f] [NAME...]
#
# NAME: postgres-source, postgres-datalake, postgres-target, kafka, connect, alluvium; in containers also
# register-connector, kafka-ui, prometheus, grafana. Without names: all of them. -f follows.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
follow=() names=()
for argument in "$@"; do
  case $argument in
    -h | --help) help; exit 0 ;;
    -f | --follow) follow=(-f) ;;
    -*) die "unknown argument '$argument' (see --help)" ;;
    *) names+=("$argument") ;;
  esac
done

# The logs of a stack that has died matter most, so a folder with logs is enough here.
if [ "${ALLUVIUM_STACK:-}" != compose ] && [ -d "$NATIVE/kafka" ]; then
  [ ${#names[@]} -gt 0 ] || names=(postgres-source postgres-datalake postgres-target kafka connect alluvium)
  files=()
  for name in "${names[@]}"; do
    case $name in
      alluvium) file=$NATIVE/alluvium.log ;;
      postgres-*) file=$NATIVE/$name/postgres.log ;;
      *) file=$NATIVE/$name/$name.log ;;
    esac
    if [ -e "$file" ]; then files+=("$file"); else say "no log of $name in $NATIVE"; fi
  done
  [ ${#files[@]} -gt 0 ] || die "no logs found"
  exec tail -n 100 "${follow[@]}" "${files[@]}"
fi
kind=$(stack_kind)
[ "$kind" = compose ] || die "the native stack has no logs in $NATIVE"
compose --profile '*' logs --tail 100 "${follow[@]}" "${names[@]}"
