#!/usr/bin/env bash
# An S3 server for tests: moto (PyPI), in memory, with conditional writes. Nothing of it outlives the process.
#
#   scripts/stack/s3.sh install     makes its virtual environment in the stack's cache; a second run takes no time
#   scripts/stack/s3.sh run PORT    runs it on that port of the loopback address, in this process
#
# Environment: ALLUVIUM_STACK_CACHE   folder of the environment (default ~/.cache/alluvium-stack)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=5.2.5
home=$ALLUVIUM_STACK_CACHE/python-moto-$version
case ${1:-} in
  -h | --help) help; exit 0 ;;
  install) [ $# = 1 ] || die "install takes no argument" ;;
  run) [ $# = 2 ] || die "which port? (see --help)" ;;
  *) die "install or run? (see --help)" ;;
esac
[ -e "$home/.complete" ] || python_environment "$home" "moto[server]==$version"
if [ "$1" = run ]; then exec "$home/bin/moto_server" -H 127.0.0.1 -p "$2"; fi
