"""Spark Structured Streaming that keeps a current table: foreachBatch with one MERGE of the last change of each key, 20,000
messages at a time. Beside `current`.

    spark_merge.py BROKER TOPIC TABLE SECONDS

TABLE is the folder of the Delta table to be made, without deletion vectors: with them Spark was slower here. The first
SECONDS of the stream are measured, to the end of the batch that runs then, or the whole topic. Prints the figures as JSON; time counts
from the start of the stream, that of Spark itself left out, to the last commit. Run by scripts/stack/spark.sh with
scripts/readers on PYTHONPATH.
"""

import sys
import tempfile
import time

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

import spark_session
from figures import report

PER_BATCH = 20_000
COLUMNS = {
    "order_id": "BIGINT",
    "customer_id": "INT",
    "status": "STRING",
    "amount": "DECIMAL(12,2)",
    "note": "STRING",
    "created_at": "TIMESTAMP_NTZ",
    "updated_at": "TIMESTAMP",
}
# As Debezium writes the others, and the way from there.
WRITTEN = {"amount": "STRING", "created_at": "BIGINT", "updated_at": "STRING"}
READ = {"created_at": "cast(timestamp_micros(e.after.created_at) AS TIMESTAMP_NTZ)"}


def columns(types: dict, between: str) -> str:
    return ", ".join(f"{name}{between}{kind}" for name, kind in types.items())


def changes(messages: DataFrame) -> DataFrame:
    """The last change of each key."""
    row = f"STRUCT<{columns(COLUMNS | WRITTEN, ': ')}>"
    envelope = F.from_json(F.col("value").cast("string"), f"before {row}, after {row}, op STRING")
    values = [READ.get(name, f"cast(e.after.{name} AS {kind})") + f" AS {name}" for name, kind in COLUMNS.items()]
    return (
        messages.where("value IS NOT NULL")
        .select("offset", envelope.alias("e"))
        .select("offset", "e", F.coalesce("e.after.order_id", "e.before.order_id").alias("key"))
        .groupBy("key")
        .agg(F.max_by("e", "offset").alias("e"))
        .selectExpr("key", "e.op = 'd' AS deleted", *values)
    )


def merge(rows: DataFrame, folder: str) -> None:
    rows.createOrReplaceTempView("changes")
    rows.sparkSession.sql(
        f"""MERGE INTO delta.`{folder}` t USING changes s ON t.order_id = s.key
            WHEN MATCHED AND s.deleted THEN DELETE
            WHEN MATCHED THEN UPDATE SET {", ".join(f"{name} = s.{name}" for name in COLUMNS)}
            WHEN NOT MATCHED AND NOT s.deleted THEN INSERT ({", ".join(COLUMNS)}) VALUES ({", ".join(f"s.{name}" for name in COLUMNS)})"""
    )


def source(reader, broker: str, topic: str):
    """Options of the Kafka source, for a stream and for a query alike."""
    return reader.format("kafka").option("kafka.bootstrap.servers", broker).option("subscribe", topic).option("startingOffsets", "earliest")


def main() -> None:
    broker, topic, folder, seconds = sys.argv[1:]
    spark = spark_session.start(memory="4g", java="")
    spark.sql(
        f"CREATE TABLE delta.`{folder}` ({columns(COLUMNS, ' ')}) USING delta TBLPROPERTIES ('delta.enableDeletionVectors' = 'false')"
    )
    committed = {}

    def apply(messages: DataFrame, batch: int) -> None:
        # The rest is let by: a stream that is stopped in the middle of a batch ends with an error.
        if committed and time.perf_counter() - started > float(seconds):
            return
        # MERGE reads its source twice; without this it would come from the broker each time.
        rows = changes(messages).persist()
        merge(rows, folder)
        rows.unpersist()
        committed[batch] = time.perf_counter()

    stream = source(spark.readStream, broker, topic).option("maxOffsetsPerTrigger", PER_BATCH).load()
    with tempfile.TemporaryDirectory(prefix="alluvium-spark-") as checkpoint:
        started = time.perf_counter()
        query = stream.writeStream.foreachBatch(apply).option("checkpointLocation", checkpoint).trigger(availableNow=True).start()
        query.awaitTermination()
    last = max(committed)
    end = next(progress for progress in query.recentProgress if progress.batchId == last).sources[0].endOffset
    # How many of the messages were events; the stream's own count has each as often as Spark read it.
    read = source(spark.read, broker, topic).option("endingOffsets", end).load()
    report(read.where("value IS NOT NULL").count(), committed[last] - started, batches=len(committed))
    spark.stop()


if __name__ == "__main__":
    main()
