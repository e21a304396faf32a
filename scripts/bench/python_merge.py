"""What a Python consumer makes of the same changes: micro-batches of 10,000 events, the last change of each key, one
MERGE by the `deltalake` package. Prints the time of a batch in the same columns as bench.sh.

    python_merge.py BROKER TOPIC FIRST_OFFSET SOURCE_TABLE FOLDER [BATCHES]

SOURCE_TABLE is the Delta table that the changes apply to; its rows are copied into FOLDER first, in files of a million
rows, without deletion vectors, which the package does not write.
"""

import os
import sys
import time

import orjson
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition
from deltalake import DeltaTable, QueryBuilder, write_deltalake

COLUMNS = ["order_id", "customer_id", "status", "amount", "note", "created_at", "updated_at"]
SCHEMA = pa.schema(
    [
        ("order_id", pa.int64()),
        ("customer_id", pa.int32()),
        ("status", pa.string()),
        ("amount", pa.decimal128(12, 2)),
        ("note", pa.string()),
        ("created_at", pa.timestamp("us")),
        ("updated_at", pa.timestamp("us", "UTC")),
    ]
)
PER_BATCH = 10_000


def copy(source: str, folder: str) -> None:
    table = DeltaTable(source)
    rows = pa.table(QueryBuilder().register("t", table).execute(f"SELECT {', '.join(COLUMNS)} FROM t"))
    rows = pa.Table.from_arrays([rows[name].cast(SCHEMA.field(name).type) for name in COLUMNS], schema=SCHEMA)
    for first in range(0, len(rows), 1_000_000):
        write_deltalake(folder, rows.slice(first, 1_000_000), mode="append")


def changes(messages) -> dict:
    last = {}
    for message in messages:
        if message.value() is not None:
            event = orjson.loads(message.value())
            last[(event["after"] or event["before"])["order_id"]] = event["after"]
    return last


def as_table(last: dict) -> pa.Table:
    def column(name: str) -> list:
        return [row and row[name] for row in last.values()]

    arrays = [pa.array(last.keys(), pa.int64())]
    for name in COLUMNS[1:]:
        field = SCHEMA.field(name).type
        raw = {"amount": pa.string(), "created_at": pa.int64(), "updated_at": pa.string()}.get(name, field)
        arrays.append(pa.array(column(name), raw).cast(field))
    arrays.append(pa.array([row is None for row in last.values()], pa.bool_()))
    return pa.table(arrays, names=[*COLUMNS, "deleted"])


def merge(table: DeltaTable, rows: pa.Table) -> None:
    values = {name: f"s.{name}" for name in COLUMNS}
    (
        table.merge(rows, predicate="t.order_id = s.order_id", source_alias="s", target_alias="t")
        .when_matched_delete(predicate="s.deleted")
        .when_matched_update(updates=values, predicate="NOT s.deleted")
        .when_not_matched_insert(updates=values, predicate="NOT s.deleted")
        .execute()
    )


def main() -> None:
    broker, topic, first, source, folder = sys.argv[1:6]
    batches = int(sys.argv[6]) if len(sys.argv) > 6 else 5
    copy(source, folder)
    table = DeltaTable(folder)
    consumer = Consumer(
        {"bootstrap.servers": broker, "group.id": "python", "enable.auto.commit": False, "fetch.queue.backoff.ms": 5}
    )
    consumer.assign([TopicPartition(topic, 0, int(first))])
    events, times, started = 0, [], time.perf_counter()
    for _ in range(batches):
        last, taken = {}, 0
        while taken < PER_BATCH:
            messages = [m for m in consumer.consume(PER_BATCH - taken, timeout=5.0) if not m.error()]
            if not messages:
                break
            taken += sum(1 for m in messages if m.value() is not None)
            last.update(changes(messages))
        begun = time.perf_counter()
        merge(table, as_table(last))
        times.append(time.perf_counter() - begun)
        events += taken
    seconds = time.perf_counter() - started
    load = os.getloadavg()[0]
    print(
        f"python   {seconds:7.2f} s  {events / seconds:8.0f} events/s  MERGE of {PER_BATCH} events {sorted(times)[len(times) // 2]:.2f} s"
        f"  (load: {load:.1f})"
    )


if __name__ == "__main__":
    main()
