#!/usr/bin/env bash
# Checks everything: format, lints, unit tests, and the tests on the real stack (Postgres, Debezium, Kafka).
#
#   scripts/test.sh [--fast | --spark] [FILTER...]
#
#   --fast      without the tests that need the stack
#   --spark     with the test in which Spark reads, changes and compacts tables; it fetches 450 MB
#   FILTER      only tests whose names contain one of these words
#
# As root on Debian or Ubuntu it installs what is missing; elsewhere it says what to install. Rust is assumed
# (https://rustup.rs). The first run on two cores takes about 45 minutes, nearly all of it compiling the dependencies;
# later runs take about 15. A stack that does not start is a failure, never a skip.
#
# Environment: CARGO_TARGET_DIR      folder of the build, to be kept between runs
#              ALLUVIUM_TEST_SEED    repeats the random choices of a run; each test prints its own
#              ALLUVIUM_HISTORIES    random histories of the fast variant; ALLUVIUM_SINK_HISTORIES of each sink
#              ALLUVIUM_FUZZ_SECONDS how long damaged records are given to the decoder
#              ALLUVIUM_TEST_KEEP    1 leaves the folder of the stack behind, with all logs
#              ALLUVIUM_STACK_CACHE  folder of the stack's jars (default ~/.cache/alluvium-stack)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fast=0 spark=0 filters=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) awk 'NR == 1 { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$0"; exit 0 ;;
    --fast) fast=1 ;;
    --spark) spark=1 ;;
    -*) echo "test.sh: unknown option '$1' (see --help)" >&2; exit 2 ;;
    *) filters+=("$1") ;;
  esac
  shift
done
[ $((fast + spark)) -lt 2 ] || { echo "test.sh: --spark needs the stack, which --fast leaves out" >&2; exit 2; }

name='' begin=0
section() {
  finish
  name=$1 begin=$SECONDS
  printf '\n==== %s\n' "$name"
}
finish() {
  [ -z "$name" ] || printf '==== %s: %d s\n' "$name" $((SECONDS - begin))
  name=''
}
# An exit in the middle of a section is its failure; what follows does not run.
trap '[ -z "$name" ] || printf "==== %s: FAILED after %d s\n" "$name" $((SECONDS - begin)) >&2' EXIT

# What compiling needs besides Rust (librdkafka and OpenSSL are built from their C sources), and what the tests call.
install_tools() {
  local missing=() program
  for program in cc:gcc c++:g++ make:make openssl:openssl prlimit:util-linux; do
    command -v "${program%%:*}" >/dev/null || missing+=("${program##*:}")
  done
  # OpenSSL's build uses modules that the perl of every Debian (perl-base) lacks.
  perl -MFindBin -MIPC::Cmd -e 1 2>/dev/null || missing+=(perl)
  if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
      echo "test.sh: missing here: ${missing[*]} (names of Debian's packages); install them and run this again" >&2
      exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" libc6-dev >/dev/null
  fi
  command -v cargo >/dev/null || { echo "test.sh: no cargo: install Rust from https://rustup.rs" >&2; exit 1; }
  cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
  cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
}

section "tools"
install_tools
if [ $fast = 0 ]; then
  scripts/stack/install.sh --python
  scripts/stack/python.sh -c 'import deltalake; print("Python deltalake", deltalake.__version__)'
  scripts/stack/s3.sh install
fi

section "format"
cargo fmt --check

section "lints"
cargo clippy --release --locked --all-targets -- -D warnings

section "build"
cargo test --release --locked --no-run

section "tests"
arguments=(${filters[@]+"${filters[@]}"})
if [ $fast = 1 ]; then
  cargo test --release --locked --lib -- ${arguments[@]+"${arguments[@]}"}
else
  cargo test --release --locked -- ${arguments[@]+"${arguments[@]}"}
fi
if [ $spark = 1 ]; then
  section "Spark"
  cargo test --release --locked --test it spark:: -- --ignored
fi
finish
echo
echo "everything passed in $SECONDS s"
