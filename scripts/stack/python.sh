#!/usr/bin/env bash
# Python with the `deltalake` package, for the test that another reader sees the same tables. Makes a virtual
# environment in the stack's cache the first time, then runs Python with the given arguments.
#
#   scripts/stack/python.sh ARG...
#
# Environment: ALLUVIUM_STACK_CACHE   folder of the environment (default ~/.cache/alluvium-stack)
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) help; exit 0 ;; esac

home=$ALLUVIUM_STACK_CACHE/python-deltalake
[ -e "$home/.complete" ] || python_environment "$home" deltalake pyarrow
exec "$home/bin/python" "$@"
