"""Markdown of the pages that training and its benchmarks write."""

from collections.abc import Iterable


def markdown_table(lines: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; lines: cells of its head, of the rule below that, and of its rows."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
