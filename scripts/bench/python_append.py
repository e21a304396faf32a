"""A Python consumer that keeps the events as they are: appends of 20,000 by the `deltalake` package. Beside `raw`.

    python_append.py BROKER TOPIC FOLDER

Prints the figures as JSON; time counts from the first contact with the broker to the last commit.
"""

import sys
import time

import pyarrow as pa
from deltalake import write_deltalake

from figures import report
from topic import batches

PER_COMMIT = 20_000


def main() -> None:
    broker, topic, folder = sys.argv[1:]
    taken, started = 0, time.perf_counter()
    for events in batches(broker, topic, PER_COMMIT):
        columns = {
            "topic": pa.array([event.topic() for event in events], pa.string()),
            "partition": pa.array([event.partition() for event in events], pa.int32()),
            "offset": pa.array([event.offset() for event in events], pa.int64()),
            "key": pa.array([event.key() for event in events], pa.binary()).cast(pa.string()),
            "value": pa.array([event.value() for event in events], pa.binary()).cast(pa.string()),
        }
        write_deltalake(folder, pa.table(columns), mode="append")
        taken += len(events)
    report(taken, time.perf_counter() - started)


if __name__ == "__main__":
    main()
