"""A Spark of this process's own, with the jars of Delta and of the Kafka source, on a small machine."""

import glob
import os
import tempfile

from pyspark.sql import SparkSession


# Java's options where the work is done before its second compiler would be. Without that one the room for code is too small,
# and the virtual machine says so where the report goes.
BRIEF = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m"


def start(memory="1g", java=BRIEF):
    """The session. SPARK_JARS, set by scripts/stack/spark.sh, is the folder of the jars."""
    jars = ":".join(sorted(glob.glob(os.path.join(os.environ["SPARK_JARS"], "*.jar"))))
    scratch = tempfile.mkdtemp(prefix="alluvium-spark-")
    settings = {
        "spark.driver.extraClassPath": jars,
        "spark.driver.memory": memory,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": f"-Dderby.system.home={scratch} {java} -Xlog:disable -Xlog:all=warning:stderr",
        "spark.local.dir": scratch,
        "spark.sql.warehouse.dir": scratch,
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
    }
    builder = SparkSession.builder.master("local[2]").appName("alluvium-readers")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
