# shellcheck shell=bash
# Sourced: finds the server programs of Postgres, which Debian keeps out of PATH.
postgres_bin() {
  local found
  if [ -n "${POSTGRES_BIN:-}" ]; then
    [ -x "$POSTGRES_BIN/initdb" ] && echo "$POSTGRES_BIN"
    return
  fi
  found=$(find /usr/lib/postgresql /usr/local/pgsql /opt/homebrew/opt -maxdepth 3 -name initdb -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1)
  [ -n "$found" ] || found=$(command -v initdb) || return 1
  dirname "$(readlink -f "$found")"
}
