"""Markdown of the pages that training and its benchmarks write."""

from collections.abc import Iterable, Sequence
from pathlib import Path


def markdown_table(lines: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; lines: cells of its head, of the rule below that, and of its rows."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_page(file: Path, parts: Sequence[str]) -> str:
    """Write a page of some parts, and return it."""
    text = "\n\n".join(parts) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return text
