"""Rows of any engine as one summary, in which equal tables are equal whatever the order of their rows.

Engines give the same column different Arrow types (string, large_string, string_view; timestamps in other units), so
each column is brought to one form first: text, bytes, decimals, and times as whole microseconds, which also holds the
extreme dates that Python's own types cannot.
"""

import hashlib

import pyarrow
import pyarrow.compute as compute
from pyarrow import types


def canonical(column):
    """The column in the one form of its kind."""
    kind = column.type
    if types.is_timestamp(kind):
        return column.cast(pyarrow.timestamp("us", tz=kind.tz)).cast(pyarrow.int64())
    if types.is_date32(kind):
        return column.cast(pyarrow.int32()).cast(pyarrow.int64())
    if types.is_integer(kind):
        return column.cast(pyarrow.int64())
    if types.is_string_view(kind) or types.is_large_string(kind):
        return column.cast(pyarrow.string())
    if types.is_binary_view(kind) or types.is_large_binary(kind):
        return column.cast(pyarrow.binary())
    return column


def total(column):
    """The exact sum as text, or None for a column that has none."""
    numbers = [value for value in column.to_pylist() if value is not None]
    return str(sum(numbers)) if numbers else None


def summary(table):
    """Number of rows, sums of the integer and decimal columns with their scales, digest of all values."""
    scales = {
        field.name: field.type.scale if types.is_decimal(field.type) else 0
        for field in table.schema
        if types.is_integer(field.type) or types.is_decimal(field.type)
    }
    columns = {name: canonical(table.column(name)) for name in sorted(table.column_names)}
    digest = 0
    for row in zip(*(column.to_pylist() for column in columns.values())):
        text = repr(row).encode("utf-8", "surrogatepass")
        digest += int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())
    sums = {name: total(columns[name]) for name in scales}
    return {"rows": table.num_rows, "sums": sums, "digest": f"{digest % 2**128:032x}", "scales": scales}


def key_filters(table):
    """Conditions on the first key-like column, each with the number of rows that a full scan finds for it."""
    names = (name for name in table.column_names if name == "id" or name.endswith(("_id", "offset")))
    name = next((name for name in names if types.is_integer(table.schema.field(name).type)), None)
    values = sorted(set(table.column(name).to_pylist()) - {None}) if name else []
    if not values:
        return
    column, low, middle = table.column(name), values[0], values[len(values) // 2]
    yield f"`{name}` = {low}", compute.sum(compute.equal(column, low)).as_py()
    yield f"`{name}` = {middle}", compute.sum(compute.equal(column, middle)).as_py()
    yield f"`{name}` >= {middle}", compute.sum(compute.greater_equal(column, middle)).as_py()
