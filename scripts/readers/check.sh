#!/usr/bin/env bash
# Do Spark, Python's deltalake and Alluvium read the same from a lake? Prints what each found as JSON; ends with 1 where
# they differ.
#
#   scripts/readers/check.sh LAKE [OPTION...]          the options of spark_check.py: --versions N, --sql STATEMENT, TABLE
#   scripts/readers/check.sh --demo [SECONDS RATE]     makes a lake with `alluvium demo` (20 s, 3000 changes a second) first
#
# Environment: ALLUVIUM_BIN           the program (default: the one that was built)
#              ALLUVIUM_STACK_CACHE, SPARK_VERSION, DELTA_VERSION: see scripts/stack/spark.sh
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

case ${1:-} in '' | -h | --help) help; exit 0 ;; esac
program=$(alluvium_binary) || die "Alluvium is not built: cargo build --release, or ALLUVIUM_BIN names the program"
if [ "$1" = --demo ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  "$program" demo --seconds "${2:-20}" --rate "${3:-3000}" --keep "$folder/lake" >&2
  set -- "$folder/lake"
fi
"$PROJECT/scripts/stack/spark.sh" "$PROJECT/scripts/readers/spark_check.py" "$@" --alluvium "$program"
