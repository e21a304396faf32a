#!/usr/bin/env bash
# The stack in containers on a Debian machine that reaches no image registry: the engine comes from Debian's packages,
# and the images are built here (debootstrap, apt, Maven), under the names that docker-compose.yml asks for. As root.
#
#   scripts/compose-local.sh up             everything: install, start the engine, build, scripts/start.sh
#   scripts/compose-local.sh install        Docker engine, compose and buildx from Debian's packages
#   scripts/compose-local.sh start          starts that engine, with a socket and a data folder of its own
#   scripts/compose-local.sh build          builds the images that are missing; Alluvium's is made of the binary in
#                                           target/release, or ALLUVIUM_BIN, if there is one, and always anew
#   scripts/compose-local.sh exec COMMAND   runs COMMAND with that engine: exec scripts/test-cdc.sh
#   scripts/compose-local.sh stop           stops the stack (its data stays) and the engine
#   scripts/compose-local.sh clean          the same, and removes everything that was made, images included
#
# Environment: COMPOSE_LOCAL_STATE    folder of the engine and its images (default /var/tmp/alluvium-compose-local)
#              COMPOSE_LOCAL_MEMORY   where base images are unpacked (default /dev/shm: dpkg is slow on disks)
#              DOCKERD_OPTIONS        e.g. --storage-driver=vfs
#              FORCE=1                builds images that are there already
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

STATE=${COMPOSE_LOCAL_STATE:-/var/tmp/alluvium-compose-local}
# A client configuration and a socket of our own: the machine's Docker, if it has one, is left alone.
export DOCKER_CONFIG=$STATE/docker-config DOCKER_HOST=unix://$STATE/docker.sock
export POSTGRES_IMAGE=${POSTGRES_IMAGE:-postgres:17} KAFKA_IMAGE=${KAFKA_IMAGE:-apache/kafka:$KAFKA_VERSION}
export CONNECT_IMAGE=${CONNECT_IMAGE:-quay.io/debezium/connect:$DEBEZIUM_VERSION} ALLUVIUM_IMAGE=${ALLUVIUM_IMAGE:-alluvium:local}
# BuildKit leaves out the stages that a target does not need; the classic builder would ask for their base images.
export DOCKER_BUILDKIT=1

engine_answers() { docker info >/dev/null 2>&1; }

timed() {
  local start=$SECONDS
  "$@"
  say "[$((SECONDS - start)) s] $*"
}

install_engine() {
  local programs="dockerd debootstrap iptables mvn" packages="docker.io debootstrap iptables maven" program missing=0
  for program in $programs; do command -v "$program" >/dev/null || missing=1; done
  if [ $missing = 1 ]; then
    apt-get update -qq
    # The package's own service is not wanted: `start` runs an engine of ours.
    # shellcheck disable=SC2086
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >"$STATE/apt.log" 2>&1 ||
      { tail -n 10 "$STATE/apt.log" >&2; die "apt-get could not install $packages (see above)"; }
  fi
  [ -x "$DOCKER_CONFIG/cli-plugins/docker-compose" ] || unpack_compose
  docker compose version >&2
}

# Debian 12 has only compose 1. The plugins of Debian 13 need no library that Debian 12 lacks, so the two packages
# are unpacked beside the engine, not installed.
unpack_compose() {
  local apt=$STATE/apt13 package
  rm -rf "$apt"
  mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$DOCKER_CONFIG/cli-plugins"
  : >"$apt/status"
  sed -E 's/bookworm/trixie/g' "$debian_sources" >"$apt/trixie.sources"
  local options=(-qq -o "Dir::Etc::sourcelist=$apt/trixie.sources" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "Dir::State::status=$apt/status"
    -o APT::Sandbox::User=root -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
  apt-get "${options[@]}" update
  (cd "$apt" && apt-get "${options[@]}" download docker-compose docker-buildx)
  for package in "$apt"/*.deb; do dpkg-deb -x "$package" "$apt/unpacked"; done
  cp "$apt"/unpacked/usr/libexec/docker/cli-plugins/* "$DOCKER_CONFIG/cli-plugins/"
  rm -rf "$apt"
}

start_engine() {
  if engine_answers; then return; fi
  command -v dockerd >/dev/null || die "dockerd is not installed: $0 install"
  rm -f "$STATE/dockerd.pid"
  # The engine leaves its bridge, its rules and a closed FORWARD chain behind; `stop` puts these back.
  iptables-save >"$STATE/iptables.before"
  cat /proc/sys/net/ipv4/ip_forward >"$STATE/ip_forward.before"
  # shellcheck disable=SC2086
  setsid dockerd ${DOCKERD_OPTIONS:-} --host "$DOCKER_HOST" --data-root "$STATE/docker" --exec-root "$STATE/docker-exec" \
    --pidfile "$STATE/dockerd.pid" >"$STATE/dockerd.log" 2>&1 </dev/null &
  await dockerd $! "$STATE/dockerd.log" "${STACK_TIMEOUT:-60}" engine_answers
  say "$(docker info --format 'dockerd {{.ServerVersion}} answers, storage {{.Driver}}')"
}

stop_engine() {
  if engine_answers; then compose --profile '*' down --remove-orphans; fi
  end_process dockerd "$STATE/dockerd.pid" "$STATE" 60
  awk -v under="$STATE/" 'index($2, under) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount
  if [ -e "$STATE/iptables.before" ]; then
    local table
    ip link delete docker0 2>/dev/null || true
    for table in filter nat; do iptables -t $table -F; iptables -t $table -X; done
    iptables -P FORWARD ACCEPT
    iptables-restore <"$STATE/iptables.before"
    cat "$STATE/ip_forward.before" >/proc/sys/net/ipv4/ip_forward
    rm "$STATE/iptables.before" "$STATE/ip_forward.before"
  fi
}

have() { [ "${FORCE:-0}" = 0 ] && docker image inspect "$1" >/dev/null 2>&1; }

base_image() { # Debian's name of a release
  have "debian:$1-slim" && return
  local memory mirror
  mirror=$(awk '/^URIs:/ { print $2; exit }' "$debian_sources")
  # A folder inside: the one of mktemp is closed to others, and would become the image's /.
  memory=$(mktemp -d -p "${COMPOSE_LOCAL_MEMORY:-/dev/shm}")
  if ! debootstrap --variant=minbase "$1" "$memory/root" "$mirror" >"$STATE/debootstrap-$1.log" 2>&1; then
    rm -rf "$memory"
    tail -n 10 "$STATE/debootstrap-$1.log" >&2
    die "debootstrap failed for $1 (see above)"
  fi
  tar -C "$memory/root" --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*' -c . |
    docker import --change 'CMD ["bash"]' - "debian:$1-slim" >/dev/null
  rm -rf "$memory"
}

jars() { # folder below images, target, Maven's further options
  local image=$1 target=$2
  shift 2
  mvn -q -B -f "$PROJECT/images/$image/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -Dkafka.version="$KAFKA_VERSION" -Ddebezium.version="$DEBEZIUM_VERSION" -DoutputDirectory="$target" "$@"
}

image() { # folder below images, tag, docker build's further options
  local name=$1 tag=$2 context=$STATE/context/$1
  shift 2
  have "$tag" && return
  rm -rf "$context"
  mkdir -p "$STATE/context"
  cp -r "$PROJECT/images/$name" "$context"
  case $name in
    kafka)
      jars kafka "$context/libs"
      cp "$PROJECT/scripts/stack/log4j2.properties" "$context/"
      ;;
    # What the worker has already must not be in the plugin's folder again.
    connect) jars connect "$context/plugin" -DexcludeGroupIds=org.apache.kafka,org.slf4j,org.lz4,org.xerial.snappy,com.github.luben ;;
  esac
  docker build -q -t "$tag" "$@" "$context" >/dev/null
  rm -rf "$context"
}

alluvium_image() {
  local binary context=$STATE/context/alluvium
  if ! binary=$(alluvium_binary); then
    say "no Alluvium binary (cargo build --release, or ALLUVIUM_BIN): its image is not built"
    return
  fi
  rm -rf "$context"
  mkdir -p "$context"
  cp "$binary" "$context/alluvium"
  docker build -q -t "$ALLUVIUM_IMAGE" --target prebuilt -f "$PROJECT/Dockerfile" "$context" >/dev/null
  rm -rf "$context"
}

build() {
  engine_answers || die "the engine does not run: $0 start"
  timed base_image bookworm
  timed base_image trixie
  timed image postgres "$POSTGRES_IMAGE"
  timed image kafka "$KAFKA_IMAGE"
  timed image connect "$CONNECT_IMAGE" --build-arg "KAFKA=$KAFKA_IMAGE"
  timed alluvium_image
}

up() {
  timed install_engine
  timed start_engine
  build
  if docker image inspect "$ALLUVIUM_IMAGE" >/dev/null 2>&1; then
    timed "$PROJECT/scripts/start.sh"
  else
    timed "$PROJECT/scripts/start.sh" --no-alluvium
  fi
}

case ${1:-} in
  -h | --help) help; exit 0 ;;
  up | install | start | build | exec | stop | clean) ;;
  *) die "up, install, start, build, exec, stop or clean? (see --help)" ;;
esac
is_root || die "this must run as root: it installs packages and starts an engine"
debian_sources=/etc/apt/sources.list.d/debian.sources
grep -qs '^URIs:' "$debian_sources" || die "this is made for Debian 12 with its sources in $debian_sources, which is not here"
mkdir -p "$STATE" "$DOCKER_CONFIG"
case $1 in
  up) up ;;
  install) timed install_engine ;;
  start) timed start_engine ;;
  build) build ;;
  exec) shift; exec "$@" ;;
  stop) stop_engine ;;
  clean)
    if engine_answers; then compose --profile '*' down -v --remove-orphans; fi
    stop_engine
    rm -rf "$STATE"
    ;;
esac
