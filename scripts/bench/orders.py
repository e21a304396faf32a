"""The orders table as the Python consumers write it; and a copy of one that Alluvium wrote.

    orders.py SOURCE_TABLE TABLE

The copy is in files of a million rows, without deletion vectors, which the `deltalake` package does not write.
"""

import sys

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake

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
COLUMNS = SCHEMA.names
PER_FILE = 1_000_000


def main() -> None:
    source, folder = sys.argv[1:]
    rows = pa.table(QueryBuilder().register("t", DeltaTable(source)).execute(f"SELECT {', '.join(COLUMNS)} FROM t"))
    rows = pa.Table.from_arrays([rows[name].cast(SCHEMA.field(name).type) for name in COLUMNS], schema=SCHEMA)
    for first in range(0, len(rows), PER_FILE):
        write_deltalake(folder, rows.slice(first, PER_FILE), mode="append")


if __name__ == "__main__":
    main()
