#!/usr/bin/env bash
# Stops the servers of a test process when it has ended, however it ended.
#
#   supervise.sh FOLDER SCRIPTS      standard input is a pipe that the test process holds open
#
# Everything that a test starts has FOLDER on its command line.
folder=$1 scripts=$2
cat >/dev/null

for process in /proc/[0-9]*; do
  pid=${process#/proc/}
  [ "$pid" != $$ ] || continue
  # A process of ours, but not a server: the program under test.
  if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -qF -- "--config $folder/"; then kill -KILL "$pid"; fi
done
"$scripts/connect.sh" kill "$folder/connect"
"$scripts/kafka.sh" kill "$folder/kafka"
for server in "$folder"/*/data/postmaster.pid; do
  [ ! -e "$server" ] || "$scripts/postgres.sh" kill "${server%/data/postmaster.pid}"
done
[ -n "${ALLUVIUM_TEST_KEEP:-}" ] || rm -rf "$folder"
