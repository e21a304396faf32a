"""A Python consumer that keeps a current table: micro-batches of 10,000 events, the last change of each key, one MERGE by
the `deltalake` package. Beside `current`, and beside `large`.

    python_merge.py BROKER TOPIC TABLE [FIRST_OFFSET [BATCHES]]

TABLE is the folder of the Delta table; an empty one is made where there is none. Without BATCHES everything that the
topic has is read. Prints the figures as JSON, the median time of a MERGE among them; time counts from the first contact
with the broker to the last commit.
"""

import itertools
import statistics
import sys
import time

import orjson
import pyarrow as pa
from deltalake import DeltaTable

from figures import report
from orders import COLUMNS, SCHEMA
from topic import batches

PER_BATCH = 10_000


def changes(events) -> pa.Table:
    """The last change of each key."""
    last = {}
    for event in events:
        change = orjson.loads(event.value())
        last[(change["after"] or change["before"])["order_id"]] = change["after"]

    arrays = [pa.array(last.keys(), pa.int64())]
    for name in COLUMNS[1:]:
        kind = SCHEMA.field(name).type
        written = {"amount": pa.string(), "created_at": pa.int64(), "updated_at": pa.string()}.get(name, kind)
        arrays.append(pa.array([row and row[name] for row in last.values()], written).cast(kind))
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
    broker, topic, folder, *numbers = sys.argv[1:]
    first, count = (int(number) for number in numbers + ["0", str(sys.maxsize)][len(numbers) :])
    table = DeltaTable(folder) if DeltaTable.is_deltatable(folder) else DeltaTable.create(folder, SCHEMA)
    taken, times, started = 0, [], time.perf_counter()
    for events in itertools.islice(batches(broker, topic, PER_BATCH, first), count):
        rows = changes(events)
        begun = time.perf_counter()
        merge(table, rows)
        times.append(time.perf_counter() - begun)
        taken += len(events)
    report(taken, time.perf_counter() - started, merge_seconds=round(statistics.median(times), 2))


if __name__ == "__main__":
    main()
