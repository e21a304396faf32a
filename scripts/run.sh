#!/usr/bin/env bash
# Runs Alluvium on this machine against the stack, with examples/stack/alluvium.toml; the lake is .native/lake.
#
#   scripts/run.sh [ARGUMENT...]     in the foreground; further arguments go to `alluvium run`
#   scripts/run.sh --background      detached: log in .native/alluvium.log, scripts/stop.sh ends it
#
# It runs ALLUVIUM_BIN, or target/release/alluvium, which is built first if it is not there.
# The stack in containers has an Alluvium of its own: start it with scripts/start.sh --no-alluvium.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
background=0
case ${1:-} in -h | --help) help; exit 0 ;; --background) background=1; shift ;; esac

if ! binary=$(alluvium_binary); then
  [ -z "${ALLUVIUM_BIN:-}" ] || die "ALLUVIUM_BIN is '$ALLUVIUM_BIN', which is not a program"
  need cargo "Install Rust, or name the program with ALLUVIUM_BIN."
  (cd "$PROJECT" && cargo build --release --locked --bin alluvium)
  binary=$(alluvium_binary) || die "cargo did not build $PROJECT/target/release/alluvium"
fi

# The lake's path in the configuration is relative to the project.
cd "$PROJECT"
export_addresses
if [ $background = 0 ]; then exec "$binary" run --config "$CONFIG" "$@"; fi

if pid=$(live_pid "$NATIVE/alluvium.pid" "$PROJECT"); then
  say "alluvium is already running (pid $pid)"
  exit 0
fi
check_port "$ALLUVIUM_PORT" Alluvium
mkdir -p "$NATIVE"
spawn "$NATIVE/alluvium.pid" "$NATIVE/alluvium.log" "$binary" run --config "$CONFIG" "$@"
await Alluvium "$(cat "$NATIVE/alluvium.pid")" "$NATIVE/alluvium.log" "${STACK_TIMEOUT:-60}" port_open "$ALLUVIUM_PORT"
say "alluvium answers on http://127.0.0.1:$ALLUVIUM_PORT (pid $(cat "$NATIVE/alluvium.pid"))"
