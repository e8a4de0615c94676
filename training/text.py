"""Text files that training and its benchmarks write: whole or not at all, and their Markdown."""

from collections.abc import Iterable, Sequence
from pathlib import Path


def markdown_table(lines: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; lines: cells of its head, of the rule below that, and of its rows."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_page(file: Path, parts: Sequence[str]) -> str:
    """Write a page of some parts, and return it."""
    text = "\n\n".join(parts) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text)
    return text


def write_atomically(file: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part."""
    partial = file.with_suffix(file.suffix + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
