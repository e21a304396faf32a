"""Reads every table of a lake with Apache Spark, with Python's deltalake (QueryBuilder), and with Alluvium if asked.

    scripts/stack/spark.sh scripts/readers/spark_check.py LAKE [--alluvium PROGRAM] [--versions N] [--sql STATEMENT]... [TABLE...]

Prints what they found as JSON, for the latest version and for some older ones: rows, the sum of each numeric column,
and for Spark and deltalake a digest of all values of all rows. Ends with 1 where two readers disagree.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
from deltalake import DeltaTable, QueryBuilder

import spark_session
from values import key_filters, summary


def tables(lake):
    """The folders with a Delta log below the lake's, without the index."""
    logs = (log.parent for log in lake.rglob("_delta_log") if "_index" not in log.parts)
    return sorted(logs)


def entries(table):
    """The log entries that are still there, by version."""
    logs = (path for path in (table / "_delta_log").glob("*.json") if path.stem.isdigit())
    return {int(path.stem): path for path in sorted(logs)}


def about(table):
    """What of Delta the table uses: so that a report shows what was tried."""
    files, found = {}, {"checkpoints": len(list((table / "_delta_log").glob("*.checkpoint*.parquet")))}
    for path in entries(table).values():
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        for kind in ("remove", "add"):
            for action in (action[kind] for action in actions if kind in action):
                files.pop(action["path"], None) if kind == "remove" else files.update({action["path"]: action})
        operation = next((action["commitInfo"]["operation"] for action in actions if "commitInfo" in action), "?")
        found[operation] = found.get(operation, 0) + 1
    vectors = [file["deletionVector"] for file in files.values() if file.get("deletionVector")]
    found |= {"files": len(files), "vectors": len(vectors), "deleted": sum(v["cardinality"] for v in vectors)}
    return found


def versions(table, count, days):
    """The latest version and older ones, evenly spread over those that can be read and are not older than that."""
    oldest = time.time() - days * 24 * 3600
    known = [version for version, path in entries(table).items() if path.stat().st_mtime > oldest]
    if known[0] != 0:
        checkpoints = (int(path.name[:20]) for path in (table / "_delta_log").glob("*.checkpoint*.parquet"))
        first = min(checkpoints)
        known = [version for version in known if version >= first]
    step = max(1, (len(known) - 1) // max(1, count))
    return sorted({known[-1], *known[::step]}, reverse=True)[: count + 1]


def with_deltalake(table, version):
    builder = QueryBuilder().register("data", DeltaTable(table, version=version))
    return summary(pyarrow.table(builder.execute("SELECT * FROM data")))


def with_spark(spark, table, version, filters):
    frame = spark.read.format("delta").option("versionAsOf", version).load(str(table))
    arrow = frame.toArrow()
    found = summary(arrow)
    # Filters go another way than full scans: statistics skip files, pages and rows, next to the vectors.
    for condition, expected in key_filters(arrow) if filters else ():
        counted = frame.where(condition).count()
        if counted != expected:
            found.setdefault("filters", []).append(f"{condition}: {counted} rows, in a full scan {expected}")
    return found


def with_alluvium(program, lake, table, version, columns):
    name = str(table.relative_to(lake)).replace("/", ".")
    sums = ", ".join(f'CAST(sum(CAST("{c}" AS DECIMAL(38, {s}))) AS VARCHAR) AS "{c}"' for c, s in columns.items())
    sql = f"SELECT count(*) AS rows{', ' if sums else ''}{sums} FROM {name}"
    command = [program, "query", sql, "--at", str(version), "--output", "json"]
    command += ["--set", f"lake.uri={lake}", "--set", "pipeline.name=reader", "--set", 'kafka.topics=["none"]']
    done = subprocess.run(command, capture_output=True, text=True, cwd=table)
    if done.returncode != 0:
        return {"error": done.stderr.strip()}
    (row,) = json.loads(done.stdout)
    return {"rows": row.pop("rows"), "sums": {name: row.get(name) for name in columns}}


def differences(readers):
    """Where two readers say different things about the same version."""
    first, *others = readers.items()
    for name, found in readers.items():
        for key in ("error", "filters"):
            if key in found:
                yield f"{name}: {found[key]}"
    for name, found in others:
        for key in ("rows", "sums", "digest"):
            if key in found and key in first[1] and found[key] != first[1][key]:
                yield f"{key}: {first[0]} {first[1][key]}, {name} {found[key]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lake", type=Path)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="folder below the lake's; default all")
    parser.add_argument("--alluvium", metavar="PROGRAM", help="ask this program too")
    parser.add_argument("--sql", action="append", default=[], metavar="STATEMENT", help="let Spark run this first")
    parser.add_argument("--versions", type=int, default=4, help="how many versions besides the latest (default 4)")
    parser.add_argument("--days", type=int, default=36500, help="only versions of the last DAYS days")
    arguments = parser.parse_args()
    lake = arguments.lake.resolve()
    spark = spark_session.start()
    for statement in arguments.sql:
        spark.sql(statement)
    report, wrong = {}, []
    for table in [lake / name for name in arguments.tables] or tables(lake):
        name = str(table.relative_to(lake))
        report[name] = {"about": about(table), "versions": {}}
        chosen = versions(table, arguments.versions, arguments.days)
        for version in chosen:
            latest = version == chosen[0]
            readers = {"spark": with_spark(spark, table, version, latest), "deltalake": with_deltalake(table, version)}
            if arguments.alluvium:
                scales = readers["spark"].get("scales", {})
                readers["alluvium"] = with_alluvium(arguments.alluvium, lake, table, version, scales)
            for found in readers.values():
                found.pop("scales", None)
            report[name]["versions"][version] = readers
            wrong += [f"{name} at {version}: {text}" for text in differences(readers)]
    json.dump({"tables": report, "differences": wrong}, sys.stdout, indent=1)
    print()
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
