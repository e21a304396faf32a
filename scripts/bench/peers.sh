# shellcheck shell=bash
# Sourced by bench.sh: what its users run in place of Alluvium. Each prints its figures as JSON and leaves a table where
# Alluvium would have it in that lake, so that both are compared with the source by the same query.

# Installs what the wanted ones need, before anything is measured.
peers_ready() {
  wants python-raw python-current python-large spark-current || return 0
  "$here/stack/install.sh" --python >&2
  if wants python-raw python-current python-large; then python_client; fi
  if wants spark-current; then "$here/stack/spark.sh" -c 'import pyspark' >&2; fi
}

# Reads the topic into a table of that lake, and prints the figures.
peer() { # measurement, topic, lake
  local broker=127.0.0.1:$kafka
  case $1 in
    python-raw) "$here/stack/python.sh" "$here/bench/python_append.py" "$broker" "$2" "$3/cdc_events" ;;
    python-current) "$here/stack/python.sh" "$here/bench/python_merge.py" "$broker" "$2" "$3/orders" ;;
    spark-current) PYTHONPATH=$here/readers "$here/stack/spark.sh" "$here/bench/spark_merge.py" "$broker" "$2" "$3/orders" \
      "${BENCH_SPARK_SECONDS:-300}" ;;
  esac
}
