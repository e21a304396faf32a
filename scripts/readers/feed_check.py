"""Replays the change data feed of tables, as Python's deltalake reads it or as Spark does, and compares with the tables.

    scripts/stack/python.sh scripts/readers/feed_check.py LAKE TABLE...
    scripts/stack/spark.sh scripts/readers/feed_check.py --spark LAKE TABLE...

Every row that a change says was there has to have been there with exactly these values, and after the last version the
rows have to be those of the table. Prints the number of changes of each kind as JSON; ends with 1 where something differs.
"""

import argparse
import collections
import json
import sys
from pathlib import Path

import pyarrow
from deltalake import DeltaTable, QueryBuilder

from values import canonical

FEED_COLUMNS = ("_change_type", "_commit_version", "_commit_timestamp")


def rows_of(table, names):
    columns = [canonical(table.column(name)).to_pylist() for name in names]
    # As texts: NaN equals nothing, not even itself.
    return [repr(row) for row in zip(*columns)]


def with_deltalake(path, first):
    feed = pyarrow.table(DeltaTable(path).load_cdf(starting_version=first))
    query = QueryBuilder().register("data", DeltaTable(path))
    return feed, pyarrow.table(query.execute("SELECT * FROM data"))


def with_spark(spark):
    def read(path, first):
        feed = spark.read.format("delta").option("readChangeFeed", "true").option("startingVersion", first).load(path)
        return feed.toArrow(), spark.read.format("delta").load(path).toArrow()

    return read


def replay(feed, table):
    """The number of changes of each kind, and what does not fit."""
    names = sorted(table.column_names)
    changes = zip(
        feed.column("_commit_version").to_pylist(),
        feed.column("_change_type").to_pylist(),
        rows_of(feed, names),
    )
    kinds, wrong, rows = collections.Counter(), [], collections.Counter()
    # Within a version rows go before others come.
    leaves = {"delete": True, "update_preimage": True, "insert": False, "update_postimage": False}
    for version, kind, row in sorted(changes, key=lambda change: (change[0], not leaves[change[1]])):
        kinds[kind] += 1
        rows[row] += -1 if leaves[kind] else 1
        if rows[row] < 0:
            wrong.append(f"version {version}: {kind} of a row that was not there")
    present = collections.Counter(rows_of(table, names))
    missing, surplus = present - rows, rows - present
    if missing or surplus:
        wrong.append(f"the feed lacks {sum(missing.values())} rows of the table and has {sum(surplus.values())} others")
    if kinds["update_preimage"] != kinds["update_postimage"]:
        wrong.append("as many rows before updates as after them")
    return kinds, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake", type=Path)
    parser.add_argument("tables", nargs="+", metavar="TABLE")
    parser.add_argument("--spark", action="store_true", help="let Spark read, not deltalake")
    parser.add_argument("--first", type=int, default=0, help="version from which on to read (default 0)")
    arguments = parser.parse_args()
    read = with_deltalake
    if arguments.spark:
        import spark_session

        read = with_spark(spark_session.start())
    report, failed = {}, False
    for name in arguments.tables:
        kinds, wrong = replay(*read(str(arguments.lake.resolve() / name), arguments.first))
        report[name] = dict(sorted(kinds.items())) | ({"wrong": wrong[:5]} if wrong else {})
        failed |= bool(wrong)
    json.dump(report, sys.stdout, indent=1)
    print()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
