"""Draws the lines of soak.csv as SVG, one panel a figure, to standard output; and a summary to standard error.

    soak_plot.py soak.csv > soak.svg
"""

import csv
import sys

WIDTH, HEIGHT, LEFT, GAP = 760, 110, 70, 34
COLOURS = ["#1f6f8b", "#c0562f"]


def panels(rows):
    """Title, unit, and the lines of each panel as (label, points)."""

    def points(value):
        return [(row["seconds"], value(row)) for row in rows if value(row) is not None]

    def per_batch(before, row):
        commits = row["commits"] - before["commits"]
        return (row["commit_seconds"] - before["commit_seconds"]) * 1000 / commits if commits > 0 else None

    def rate(before, row):
        return (row["records"] - before["records"]) / max(row["seconds"] - before["seconds"], 1)

    def pairs(value):
        found = [(row["seconds"], value(before, row)) for before, row in zip(rows, rows[1:])]
        return [(at, y) for at, y in found if y is not None]

    return [
        ("events applied", "1/s", [("", pairs(rate))]),
        ("freshness, 99th percentile of ten seconds", "s", [("", points(lambda row: row["p99"]))]),
        ("time of a commit (current table, then raw table)", "ms", [("", pairs(per_batch))]),
        ("live files", "", [("orders", points(lambda row: row["files"])), ("cdc_events", points(lambda row: row["raw_files"]))]),
        ("log of the current table", "MiB", [("", points(lambda row: row["log_kib"] / 1024))]),
        ("lake on disk", "MiB", [("", points(lambda row: row["lake_kib"] / 1024))]),
        ("resident memory", "MiB", [("", points(lambda row: row["memory_mib"]))]),
    ]


def draw(rows):
    last = max(row["seconds"] for row in rows) or 1
    drawn = panels(rows)
    total = len(drawn) * (HEIGHT + GAP) + 30
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{total}" font-family="sans-serif" font-size="11">']
    out.append(f'<rect width="{WIDTH}" height="{total}" fill="white"/>')
    for number, (title, unit, lines) in enumerate(drawn):
        top = number * (HEIGHT + GAP) + 24
        highest = max((y for _, line in lines for _, y in line), default=1) or 1
        out.append(f'<text x="{LEFT}" y="{top - 6}" font-weight="bold">{title}{f" ({unit})" if unit else ""}</text>')
        for share in (0, 0.5, 1):
            y = top + HEIGHT * (1 - share)
            out.append(f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - 10}" y2="{y}" stroke="#ddd"/>')
            out.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{highest * share:.3g}</text>')
        for (label, line), colour in zip(lines, COLOURS):
            path = " ".join(
                f"{LEFT + (WIDTH - LEFT - 10) * at / last:.1f},{top + HEIGHT * (1 - y / highest):.1f}" for at, y in line
            )
            out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
        labels = [(label, colour) for (label, _), colour in zip(lines, COLOURS) if label]
        for at, (label, colour) in enumerate(labels):
            out.append(f'<text x="{WIDTH - 10}" y="{top - 6 - 12 * at}" text-anchor="end" fill="{colour}">{label}</text>')
    out.append(f'<text x="{WIDTH - 10}" y="{total - 4}" text-anchor="end">{last / 60:.0f} minutes</text></svg>')
    return "\n".join(out)


def summary(rows):
    def median(values):
        values = sorted(value for value in values if value is not None)
        return values[len(values) // 2] if values else float("nan")

    last = rows[-1]["seconds"]
    early = [row for row in rows if 600 <= row["seconds"] <= 1200] or rows[: len(rows) // 2]
    late = [row for row in rows if row["seconds"] >= last - 600]
    p99 = [row["p99"] for row in rows if row["p99"] is not None]
    # A short run has no interval between two samples in which something was committed.
    largest = max(p99, default=float("nan"))
    print(f"freshness p99 of ten seconds: median {median(p99):.2f} s, largest {largest:.2f} s", file=sys.stderr)
    for name in ("files", "raw_files", "log_kib", "memory_mib"):
        a, b = median(row[name] for row in early), median(row[name] for row in late)
        print(f"{name}: {a:.0f} from minute 10 to 20, {b:.0f} in the last ten minutes", file=sys.stderr)


def main():
    with open(sys.argv[1], newline="") as file:
        rows = [{name: float(value) if value else None for name, value in row.items()} for row in csv.DictReader(file)]
    if not rows:
        sys.exit(f"{sys.argv[1]} has no samples")
    print(draw(rows))
    summary(rows)


main()
