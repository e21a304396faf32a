# shellcheck shell=bash
# Sourced by the stack scripts: messages, waiting, and processes that are known by a pid file.
#
# A pid file is never trusted by itself: the number may belong to another program by now. Each service
# carries its own folder on its command line, and only a process whose command line names that folder
# is taken for ours.

KAFKA_VERSION=${KAFKA_VERSION:-4.3.1}
DEBEZIUM_VERSION=${DEBEZIUM_VERSION:-3.7.0.Final}
ALLUVIUM_STACK_CACHE=${ALLUVIUM_STACK_CACHE:-${HOME:-/var/tmp}/.cache/alluvium-stack}
STACK_LIB=$ALLUVIUM_STACK_CACHE/kafka-$KAFKA_VERSION-debezium-$DEBEZIUM_VERSION/lib
STACK_SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf '%s\n' "$*" >&2; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# The comment block at the top of a script is its help text.
help() { awk 'NR == 1 { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$0"; }

need() { # program, what brings it
  command -v "$1" >/dev/null || die "$1 is not installed. $2"
}

is_root() { [ "$(id -u)" = 0 ]; }

# The pid in FILE, if a process of ours with FOLDER on its command line has it.
live_pid() { # file, folder
  local pid
  pid=$(head -n 1 "$1" 2>/dev/null) || return 1
  [[ $pid =~ ^[0-9]+$ ]] || return 1
  tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$2/" || return 1
  echo "$pid"
}

alive() { # pid; a zombie has ended, once its last thread has: until then it keeps its ports
  local state threads
  state=$(sed -E 's/^.*\) (.).*$/\1/' "/proc/$1/stat" 2>/dev/null) || return 1
  [ "$state" != Z ] || { threads=("/proc/$1/task/"*) && [ ${#threads[@]} -gt 1 ]; }
}

# Runs COMMAND in the background, detached from the terminal and from the caller's process group.
spawn() { # pid file, log, command...
  local pid_file=$1 log=$2
  shift 2
  [ ! -e "$log" ] || mv -f "$log" "$log.old"
  setsid "$@" >"$log" 2>&1 </dev/null &
  echo $! >"$pid_file"
}

# Repeats COMMAND until it succeeds. Gives up when the process ends or the deadline passes.
await() { # what, pid, log, seconds, command...
  local what=$1 pid=$2 log=$3 deadline=$((SECONDS + $4))
  local seconds=$4
  shift 4
  until "$@" >/dev/null 2>&1; do
    if ! alive "$pid"; then
      tail -n 25 "$log" >&2 || true
      die "$what ended while starting; the end of its log ($log) is above"
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then
      tail -n 25 "$log" >&2 || true
      die "$what does not answer after $seconds s (STACK_TIMEOUT); the end of its log ($log) is above"
    fi
    sleep 0.1
  done
}

# Ends the process of a pid file with SIGTERM, after the deadline with SIGKILL, and removes the file.
end_process() { # what, pid file, folder, seconds, [signal]
  local what=$1 file=$2 folder=$3 deadline=$((SECONDS + $4)) signal=${5:-TERM} pid
  if ! pid=$(live_pid "$file" "$folder"); then
    rm -f "$file"
    say "$what is not running"
    return 0
  fi
  kill "-$signal" "$pid" 2>/dev/null || true
  while alive "$pid"; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      say "$what did not end in time and is killed (pid $pid)"
      kill -KILL "$pid" 2>/dev/null || true
      deadline=$((SECONDS + 10))
    fi
    sleep 0.1
  done
  rm -f "$file"
  say "$what stopped"
}

port_open() { # port on the loopback address
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

check_port() { # port, what
  [[ ${1:-} =~ ^[0-9]+$ ]] && [ "$1" -ge 1 ] && [ "$1" -le 65535 ] || die "'${1:-}' is not a port number"
  ! port_open "$1" || die "port $1 is taken by another program, so $2 cannot start there.
  See who has it with: ss -tlnp 'sport = :$1'"
}

# A free port below the range that the kernel gives to outgoing connections.
free_port() {
  local port
  for _ in {1..200}; do
    port=$((10240 + (RANDOM << 1 ^ RANDOM) % 20000))
    port_open "$port" || { echo "$port"; return; }
  done
  die "no free port found"
}

java_command() {
  local java=java version
  [ -z "${JAVA_HOME:-}" ] || java=$JAVA_HOME/bin/java
  command -v "$java" >/dev/null || die "no java: run $STACK_SCRIPTS/install.sh"
  version=$("$java" -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p' | head -n 1)
  [ "${version:-0}" -ge 17 ] || die "$java is version ${version:-unknown}; Kafka $KAFKA_VERSION needs Java 17 or newer (JAVA_HOME chooses another)"
  echo "$java"
}

need_jars() {
  [ -e "$STACK_LIB/.complete" ] || die "no Kafka jars in $STACK_LIB: run $STACK_SCRIPTS/install.sh"
}

# Makes a virtual environment with these packages, whole or not at all. Two test runs may get here together: the second waits, and
# finds the work done. A shell of its own, with whose end the lock is released.
python_environment() ( # folder, package...
  home=$1
  shift
  need python3 "Install it (Debian: apt-get install python3 python3-venv)."
  mkdir -p "$(dirname "$home")"
  exec 9>"$home.lock"
  flock 9
  [ ! -e "$home/.complete" ] || return 0
  rm -rf "$home"
  say "installing $* in $home"
  python3 -m venv "$home" >"$home.log" 2>&1 ||
    { cat "$home.log" >&2; die "python3 cannot make a virtual environment (Debian: apt-get install python3-venv)"; }
  "$home/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >>"$home.log" 2>&1 ||
    { tail -n 15 "$home.log" >&2; die "pip could not install $* (see above)"; }
  touch "$home/.complete"
)
