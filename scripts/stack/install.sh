#!/usr/bin/env bash
# Makes this machine able to run the stack as plain processes: Postgres, Java 17, Maven, curl, and the jars
# of Kafka, Kafka Connect and Debezium. What is there already is kept; a second run takes no time.
#
#   scripts/stack/install.sh            as root on Debian or Ubuntu it installs what is missing,
#                                       elsewhere it says what to install
#   scripts/stack/install.sh --python   also Python with venv: for python.sh and s3.sh
#   scripts/stack/install.sh --help
#
# Environment: ALLUVIUM_STACK_CACHE   folder of the jars (default ~/.cache/alluvium-stack)
#              KAFKA_VERSION, DEBEZIUM_VERSION, JAVA_HOME
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$STACK_SCRIPTS/postgres-programs.sh"
python=0
case ${1:-} in -h | --help) help; exit 0 ;; --python) python=1 ;; '') ;; *) die "unknown argument '$1' (see --help)" ;; esac

missing_packages() {
  local java=java
  [ -z "${JAVA_HOME:-}" ] || java=$JAVA_HOME/bin/java
  postgres_bin >/dev/null || echo postgresql
  command -v psql >/dev/null || echo postgresql-client
  command -v curl >/dev/null || echo curl
  if [ ! -e "$STACK_LIB/.complete" ]; then command -v mvn >/dev/null || echo maven; fi
  command -v "$java" >/dev/null || echo default-jre-headless
  # Debian has this module, by which a virtual environment gets its pip, in the package of venv.
  if [ $python = 1 ]; then python3 -c 'import ensurepip' 2>/dev/null || printf '%s\n' python3 python3-venv; fi
}

install_packages() {
  local packages
  packages=$(missing_packages)
  [ -n "$packages" ] || return 0
  if ! is_root || ! command -v apt-get >/dev/null; then
    die "missing here: $(tr '\n' ' ' <<<"$packages")
  These are the names of Debian's packages; install them (Java 17 or newer) and run this again."
  fi
  say "installing $(tr '\n' ' ' <<<"$packages")"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  if grep -qx postgresql <<<"$packages"; then
    # Without this the package creates a cluster of its own and starts it on port 5432.
    apt-get install -y -qq --no-install-recommends postgresql-common >/dev/null
    sed -ri 's/^#?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
  fi
  # shellcheck disable=SC2086
  apt-get install -y -qq --no-install-recommends $packages >/dev/null
}

install_jars() {
  [ ! -e "$STACK_LIB/.complete" ] || return 0
  local home=${STACK_LIB%/lib} part
  mkdir -p "$home"
  # Two test runs may get here together: the second waits, and finds the work done.
  exec 9>"$home/lock"
  flock 9
  [ ! -e "$STACK_LIB/.complete" ] || return 0
  say "resolving Kafka $KAFKA_VERSION and Debezium $DEBEZIUM_VERSION with Maven"
  part=$home/lib.part
  rm -rf "$part" "$STACK_LIB"
  if ! mvn -q -B -f "$STACK_SCRIPTS/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -Dkafka.version="$KAFKA_VERSION" -Ddebezium.version="$DEBEZIUM_VERSION" -DoutputDirectory="$part" >"$home/maven.log" 2>&1; then
    tail -n 15 "$home/maven.log" >&2
    die "Maven could not resolve the jars (see above, all of it in $home/maven.log). Is Maven Central, or a mirror in ~/.m2/settings.xml, reachable?"
  fi
  touch "$part/.complete"
  mv "$part" "$STACK_LIB"
  flock -u 9
}

install_packages
java_command >/dev/null
install_jars
echo "$STACK_LIB"
