#!/usr/bin/env bash
# Python with Apache Spark (PyPI) and the jars of Delta and of Spark's Kafka source (Maven), for the check that Spark agrees
# and for the benchmark beside it. Makes a virtual environment in the stack's cache the first time, which downloads 450 MB,
# then runs Python with the given arguments.
#
#   scripts/stack/spark.sh ARG...
#   scripts/stack/spark.sh scripts/readers/spark_check.py LAKE
#
# Environment: ALLUVIUM_STACK_CACHE   folder of the environment (default ~/.cache/alluvium-stack)
#              SPARK_VERSION, DELTA_VERSION, JAVA_HOME; the two versions have to fit together
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
case ${1:-} in -h | --help) help; exit 0 ;; esac

SPARK_VERSION=${SPARK_VERSION:-4.2.0}
DELTA_VERSION=${DELTA_VERSION:-4.4.0}
home=$ALLUVIUM_STACK_CACHE/python-spark-$SPARK_VERSION
jars=$ALLUVIUM_STACK_CACHE/delta-$DELTA_VERSION-kafka-spark-$SPARK_VERSION

install_jars() ( # a shell of its own, with whose end the lock is released
  mkdir -p "$ALLUVIUM_STACK_CACHE"
  exec 9>"$jars.lock"
  flock 9
  [ ! -e "$jars/.complete" ] || return 0
  need mvn "Run $STACK_SCRIPTS/install.sh."
  say "resolving Delta $DELTA_VERSION and the Kafka source for Spark $SPARK_VERSION with Maven"
  rm -rf "$jars"
  mvn -q -B -f "$STACK_SCRIPTS/spark-pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -Ddelta.version="$DELTA_VERSION" -Dspark.version="$SPARK_VERSION" -Dscala="${SPARK_VERSION%.*}_2.13" -DoutputDirectory="$jars" >"$jars.log" 2>&1 ||
    { tail -n 15 "$jars.log" >&2; die "Maven could not resolve the jars (see above, all of it in $jars.log)"; }
  touch "$jars/.complete"
)

java_command >/dev/null
[ -e "$jars/.complete" ] || install_jars
[ -e "$home/.complete" ] || python_environment "$home" "pyspark==$SPARK_VERSION" deltalake pyarrow
SPARK_JARS=$jars exec "$home/bin/python" "$@"
