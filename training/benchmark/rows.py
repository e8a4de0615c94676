"""Rows of a comparison <-> a CSV file: frozen dataclasses, what was not computed empty."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ecgwatch.errors import ConfigError

_R = TypeVar("_R")
LEAST = 1e-3  # a setting below it keeps its digits
_AGAIN = "take the file from git again, or remove it and make it anew"


def write_csv(file: Path, rows: Sequence[Any], digits: str = ".4f") -> None:
    """Write rows of one dataclass, whole or not at all; digits: the format of figures."""
    names = [field.name for field in fields(rows[0])]
    write_lines(file, names, ([_cell(getattr(row, name), digits) for name in names] for row in rows))


def write_lines(file: Path, names: Iterable[str], lines: Iterable[Iterable[object]]) -> None:
    """Write a header and lines as CSV; a reader sees the old file or the new one, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    with partial.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(lines)
    partial.replace(file)


def _cell(value: object, digits: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return format(value, "g" if 0 < abs(value) < LEAST else digits)


def read_csv(file: Path, kind: type[_R]) -> list[_R]:
    """Return the rows of a file that `write_csv` wrote; none where there is no file.

    Raises ConfigError naming the file where it holds other things than such rows.
    """
    return converted(file, ({k: v or None for k, v in line.items()} for line in read_lines(file)), kind)


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the lines of a CSV file, column -> text; none where there is no file; ConfigError where it is another."""
    if not file.exists():
        return []
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            return list(csv.DictReader(opened))
    except (UnicodeDecodeError, csv.Error):
        raise ConfigError(f"{file} is no CSV file; {_AGAIN}") from None


def converted(file: Path, lines: Iterable[Mapping[str, Any]], kind: type[_R]) -> list[_R]:
    """Return lines as rows of a dataclass.

    Raises ConfigError naming file and line (2: the first below the header) where one is not such a row.
    """
    found = []
    for number, line in enumerate(lines, 2):
        try:
            found.append(msgspec.convert(line, kind, strict=False))
        except msgspec.ValidationError as error:
            raise ConfigError(f"{file}, line {number}: {error}; {_AGAIN}") from None
    return found
