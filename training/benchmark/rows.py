"""Rows of a comparison <-> a CSV file: frozen dataclasses, what was not computed empty."""

import csv
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec

_R = TypeVar("_R")


def write_csv(file: Path, rows: Sequence[Any], digits: str = ".4f") -> None:
    """Write rows of one dataclass, whole or not at all; digits: the format of figures."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    names = [field.name for field in fields(rows[0])]
    with partial.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_cell(getattr(row, name), digits) for name in names] for row in rows)
    partial.replace(file)


def _cell(value: object, digits: str) -> str:
    return "" if value is None else format(value, digits) if isinstance(value, float) else str(value)


def read_csv(file: Path, kind: type[_R]) -> list[_R]:
    """Return the rows of a file that `write_csv` wrote; none where there is no file."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as opened:
        found: list[dict[str, Any]] = [{k: v or None for k, v in row.items()} for row in csv.DictReader(opened)]
    return msgspec.convert(found, list[kind], strict=False)  # type: ignore[valid-type]
