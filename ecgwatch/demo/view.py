"""Draw the tally: a live picture for a terminal, lines for everything else."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ecgwatch.demo.tally import SHOWN_ALERTS, SHOWN_BEATS, Count, JudgedAlert, Tally

_BARS = "▁▂▃▄▅▆▇█"
_LOG_ROWS = 3
_SVG_SIZE = 112, 44
_FEWEST_ALERTS = 3
_OTHER_COLUMNS = 80  # what the table needs beside the last beats


@dataclass(frozen=True)
class Facts:
    """What does not change during a run: one line each for the head of the picture; patient -> what is played."""

    head: tuple[str, ...]
    played: dict[str, str]
    target_per_hour: float


def picture(
    facts: Facts, tally: Tally, state: str, worker_log: Sequence[str], width: int, height: int
) -> RenderableType:
    """Return the whole picture for a terminal of 80 columns and 24 rows or more; what it leaves out depends on both."""
    head = Panel(
        Text("\n".join([*facts.head, state]), no_wrap=True, overflow="ellipsis"),
        title="ecgwatch demo",
        border_style="blue",
    )
    log = Text("\n".join(worker_log[-_LOG_ROWS:]), style="dim")
    compact = height < _rows(tally, compact=False) + _FEWEST_ALERTS
    room = height - _rows(tally, compact)
    parts: list[RenderableType] = [
        head,
        _patients(facts, tally, max(6, min(SHOWN_BEATS, width - _OTHER_COLUMNS)), compact),
    ]
    if with_log := room >= _LOG_ROWS + 2 + _FEWEST_ALERTS:
        room -= _LOG_ROWS + 2
    parts.append(
        Panel(
            _alerts(tally, max(_FEWEST_ALERTS, min(SHOWN_ALERTS, room))),
            title="alerts, judged against the record's annotations",
            border_style="blue",
        )
    )
    if with_log:
        parts.append(Panel(log, title="the worker's log", border_style="dim", height=_LOG_ROWS + 2))
    return Group(*parts)


def as_svg(facts: Facts, tally: Tally, worker_log: Sequence[str]) -> str:
    """Return the picture as an SVG that loads nothing from elsewhere."""
    console = Console(file=io.StringIO(), record=True, width=_SVG_SIZE[0], height=_SVG_SIZE[1], force_terminal=True)
    console.print(picture(facts, tally, "The demo is over.", worker_log, *_SVG_SIZE))
    svg = console.export_svg(title="ecgwatch demo")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # rich's web fonts


def _rows(tally: Tally, compact: bool) -> int:
    """Rows of the picture without log and alerts: head, table, the alerts' frame, and one for the cursor."""
    return 7 + len(tally.patients) * (1 if compact else 2) + (7 if compact else 8) + 2 + 1


def legend() -> str:
    """Say how to read the column of the last beats."""
    return "bars: score, red above the threshold; below: annotation (· normal, S V F Q not)"


def alert_line(judged: JudgedAlert) -> str:
    """Return an alert as one line of text."""
    alert = judged.alert
    return f"{alert.patient}  score {alert.score:.2f} > {alert.threshold:.2f}  {judged.verdict}; {alert.reason}"


def progress_line(tally: Tally) -> str:
    """Return where things stand as one line of text."""
    total = tally.total
    return f"{total.scored} of {total.sent} beats scored; {_judged(total)}; {_latency(tally)}"


def summary(facts: Facts, tally: Tally) -> list[str]:
    """Return the lines that stand when the run is over, with the rule by which each figure was counted."""
    total = tally.total
    return [
        f"{total.sent} beats sent, {total.scored} scored, {total.refused} refused, {tally.outstanding} unanswered",
        f"alerts: {total.alerts}, of which {total.right_alerts} right and {total.false_alerts} false",
        f"abnormal beats (annotated other than N): {total.found} of {total.abnormal} found{_percent(total)},"
        f" {total.missed} missed",
        f"false alerts per hour of normal rhythm: {_rate(total)} (the threshold aims at {facts.target_per_hour:g})",
        *_learning(total),
        f"{_latency(tally)}, of which the embedded broker adds up to 1.5 s (`make bench`: a real one)",
    ]


def _patients(facts: Facts, tally: Tally, shown: int, compact: bool) -> Table:
    """shown: how many of the last beats there is room for; compact: one row a patient."""
    table = Table(expand=True, border_style="blue", caption=None if compact else legend(), caption_style="dim")
    table.add_column("patient", no_wrap=True)
    table.add_column("last beats", width=shown, no_wrap=True)
    for name, digits in (
        ("score", 5),
        ("beats\nscored", 6),
        ("right\nalerts", 6),
        ("false\nalerts", 6),
        ("abnormal\nfound", 10),
        ("false\nper hour", 8),
    ):
        table.add_column(name, justify="right", no_wrap=True, min_width=digits)
    for number, (patient, count) in enumerate(tally.patients.items(), 1):
        bars, symbols = _beats(tally, patient, shown)
        label, played = Text(patient, style="bold"), Text(facts.played[patient], style="dim")
        table.add_row(
            label if compact else Text("\n").join([label, played]),
            *_row(count, bars if compact else Text("\n").join([bars, symbols]), _last_score(tally, patient)),
            end_section=number == len(tally.patients),
        )
    table.add_row(Text("all", style="bold"), *_row(tally.total, Text(_latency_cell(tally), style="dim"), Text("")))
    return table


def _row(count: Count, beats: Text, score: Text) -> list[RenderableType]:
    return [
        beats,
        score,
        str(count.scored),
        Text(str(count.right_alerts), style="green"),
        Text(str(count.false_alerts), style="red"),
        f"{count.found} of {count.abnormal}",
        _rate(count),
    ]


def _beats(tally: Tally, patient: str, shown: int) -> tuple[Text, Text]:
    """Return the score of each of the last beats as a bar, and its annotation."""
    bars, symbols = Text(), Text()
    for score, truth in list(tally.recent[patient])[-shown:]:
        share = score.score / score.threshold if score.threshold > 0 else 0.0
        filled = 1.0 if score.alert else min(max(share, 0.0), 1.0)
        bars.append(_BARS[round(filled * (len(_BARS) - 1))], style="bold red" if score.alert else "cyan")
        symbols.append("·" if truth.is_normal else truth.aami, style="dim" if truth.is_normal else "bold yellow")
    return bars, symbols


def _last_score(tally: Tally, patient: str) -> Text:
    if not tally.recent[patient]:
        return Text("-")
    score, _ = tally.recent[patient][-1]
    return Text(f"{score.score:.2f}", style="bold red" if score.alert else "")


def _alerts(tally: Tally, rows: int) -> RenderableType:
    lines = [
        Text.assemble(
            ("✓ " if judged.is_right else "✗ ", "bold green" if judged.is_right else "bold red"),
            (f"{judged.alert.patient} ", "bold"),
            f"{judged.alert.score:6.2f}  ",
            (judged.verdict, "green" if judged.is_right else "red"),
            (f"  {judged.alert.reason}", "dim"),
            no_wrap=True,
            overflow="ellipsis",
        )
        for judged in list(tally.alerts)[-rows:]
    ]
    return Group(*lines, *[Text("")] * (rows - len(lines)))  # of constant height: the picture stands still


def _judged(count: Count) -> str:
    return (
        f"{count.alerts} alerts: {count.right_alerts} right, {count.false_alerts} false;"
        f" {count.found} of {count.abnormal} abnormal beats found"
    )


def _latency(tally: Tally) -> str:
    return "from beat to score: " + ("-" if tally.latency_ms is None else f"{tally.latency_ms:.0f} ms (median)")


def _latency_cell(tally: Tally) -> str:
    return "" if tally.latency_ms is None else f"scored after {tally.latency_ms:.0f} ms"


def _rate(count: Count) -> str:
    rate = count.false_alerts_per_hour
    return "-" if rate is None else f"{rate:.0f}"


def _learning(count: Count) -> list[str]:
    """Say where the threshold is not meant for what was seen: the excerpts are shorter than learning takes."""
    if not count.learning:
        return []
    return [
        f"{count.learning} of {count.scored} beats came while their patient's typical beat was still being learned, "
        "which takes five minutes: the threshold is meant for later"
    ]


def _percent(count: Count) -> str:
    return "" if count.sensitivity is None else f" ({count.sensitivity:.1%})"
