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
install() {
  need python3 "Install it (Debian: apt-get install python3 python3-venv)."
  mkdir -p "$ALLUVIUM_STACK_CACHE"
  # Two test runs may get here together: the second waits, and finds the work done.
  exec 9>"$home.lock"
  flock 9
  [ ! -e "$home/.complete" ] || return 0
  rm -rf "$home"
  python3 -m venv "$home" >"$home.log" 2>&1 ||
    { cat "$home.log" >&2; die "python3 cannot make a virtual environment (Debian: apt-get install python3-venv)"; }
  "$home/bin/python" -m pip install --quiet --disable-pip-version-check deltalake pyarrow >>"$home.log" 2>&1 ||
    { tail -n 15 "$home.log" >&2; die "pip could not install deltalake (see above)"; }
  touch "$home/.complete"
}

[ -e "$home/.complete" ] || install
exec "$home/bin/python" "$@"
