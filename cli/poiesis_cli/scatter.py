"""`run --scatter`: one task per line of a table. Pure, except for reading the table."""

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from poiesis_cli.errors import BadUsage

ROWS = 10_000  # of a table
_TABLE_BYTES = 16 * 1024 * 1024
_EXAMPLE = "the first line has the names of the columns, for example: sample<TAB>reads"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a heading: at least one column and one row."""

    columns: Sequence[str]
    rows: Sequence[Mapping[str, str]]


def read_table(file: str) -> Table:
    """Read a file of tab-separated or comma-separated values (RFC 4180). Raise BadUsage."""
    try:
        data = Path(file).read_bytes()[: _TABLE_BYTES + 1]
        if len(data) > _TABLE_BYTES:
            raise BadUsage(f"{file} is larger than {_TABLE_BYTES} bytes", "split it into several tables")
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadUsage(f"{file} is not UTF-8 text") from None
    except OSError as error:
        raise BadUsage(f"cannot read {file!r}: {os.strerror(error.errno or 0)}") from error
    return parse_table(text, file)


def parse_table(text: str, source: str) -> Table:
    """Parse a table; empty lines are skipped. Raise BadUsage with `source` and the line in the message."""
    heading = text.partition("\n")[0]
    reader = csv.reader(text.splitlines(), delimiter="\t" if "\t" in heading else ",", strict=True)
    try:
        lines = [(reader.line_num, [field.strip() for field in line]) for line in reader if any(line)]
    except csv.Error as error:
        raise BadUsage(f"{source}, line {reader.line_num}: {error}") from error
    if not lines:
        raise BadUsage(f"{source} is empty", _EXAMPLE)
    (_, columns), *rest = lines
    _check_columns(columns, source)
    for number, fields in rest:
        if len(fields) != len(columns):
            raise BadUsage(
                f"{source}, line {number}: expected {len(columns)} fields, got {len(fields)}",
                f"columns: {', '.join(columns)}",
            )
    if not 0 < len(rest) <= ROWS:
        raise BadUsage(f"{source} must have 1 to {ROWS} lines after the heading, got {len(rest)}")
    return Table(columns=columns, rows=[dict(zip(columns, fields, strict=True)) for _, fields in rest])


def fill(text: str, row: Mapping[str, str]) -> str:
    """Replace `{column}` by the row's value, and `{{column}}` by `{column}`.

    Other braces stay unchanged: `${HOME}` and `awk '{print $1}'` need no escape.
    """
    names = "|".join(map(re.escape, row))
    return re.sub(
        rf"\{{\{{({names})\}}\}}|\{{({names})\}}",
        lambda match: f"{{{match[1]}}}" if match[1] is not None else row[match[2]],
        text,
    )


def check_used(table: Table, texts: Iterable[str], source: str) -> None:
    """Raise BadUsage if no text has a column: all tasks would be the same."""
    if not any(fill(text, table.rows[0]) != text for text in texts):
        raise BadUsage(
            f"neither the command nor an option has a column of {source}",
            f"write {{{table.columns[0]}}} where its value belongs",
        )


def _check_columns(columns: Sequence[str], source: str) -> None:
    if "" in columns:
        raise BadUsage(f"{source}: column {columns.index('') + 1} has no name", _EXAMPLE)
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise BadUsage(f"{source}: two columns have the name {twice!r}")
