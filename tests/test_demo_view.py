"""What the demo's picture and lines say."""

import io

import msgspec
import pytest
from rich.console import Console

from ecgwatch.demo import view
from ecgwatch.demo.tally import Tally
from tests.test_demo_tally import alert, score, tally

FACTS = view.Facts(
    head=("one patient", "a model", "no medical device", "a threshold"), played={"bed-1": "233"}, target_per_hour=10
)


def drawn(made: Tally, width=120, height=40) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(view.picture(FACTS, made, "The worker is starting.", ["one", "two", "three", "four"], width, height))
    return console.export_text()


def watched():
    made = tally(a="V", b="N", c="N")
    for name, is_alert in (("a", True), ("b", True), ("c", False)):
        made.scored(score(name, is_alert), now_s=0.03)
    made.alerted(alert("a"))
    made.alerted(alert("b"))
    return made


def test_the_picture_shows_patient_record_annotations_and_the_judged_alerts():
    text = drawn(watched())
    for part in (
        "bed-1",
        "233",
        "V··",
        "✓ bed-1",
        "right: ventricular ectopic beat",
        "✗ bed-1",
        "false alert",
        "1 of 1",
    ):
        assert part in text


def test_the_picture_says_what_is_going_on_and_ends_with_the_workers_last_lines():
    text = drawn(watched())
    assert "The worker is starting." in text
    assert "four" in text and "one\n" not in text


def test_the_picture_keeps_its_height_when_alerts_come():
    assert drawn(tally(a="V")).count("\n") == drawn(watched()).count("\n")


def test_the_picture_can_be_drawn_before_anything_was_heard_and_in_80_columns():
    assert "0 of 0" in drawn(tally(a="V"), width=80)


@pytest.mark.parametrize("height", [24, 25, 28, 30, 36, 50])
def test_the_picture_fits_a_terminal_and_always_shows_the_last_alerts(height):
    text = drawn(watched(), width=80, height=height)
    assert text.count("\n") < height
    assert {len(line) for line in text.splitlines() if line[0] in "┏├└╭╰"} == {80}
    assert "✗ bed-1" in text


def test_the_svg_shows_the_picture_and_loads_nothing():
    svg = view.as_svg(FACTS, watched(), ["one"])
    assert "bed-1" in svg
    assert "url(http" not in svg


def test_a_threshold_of_zero_or_below_can_be_drawn():
    made = tally(a="N")
    made.scored(msgspec.structs.replace(score("a", True), threshold=0.0), now_s=1.0)
    assert "█" in drawn(made)


def test_the_summary_tells_what_was_found_missed_and_false_beside_the_target():
    text = "\n".join(view.summary(FACTS, watched()))
    assert "3 beats sent, 3 scored, 0 refused, 0 unanswered" in text
    assert "alerts: 2, of which 1 right and 1 false" in text
    assert "1 of 1 found (100.0%), 0 missed" in text
    assert "3600 (the threshold aims at 10)" in text
    assert "learned" not in text


def test_the_summary_says_that_the_threshold_is_meant_for_learned_typical_beats():
    made = tally(a="N")
    made.scored(msgspec.structs.replace(score("a", False), baseline="learning"), now_s=0.03)
    assert "1 of 1 beats came while their patient's typical beat was still being learned" in "\n".join(
        view.summary(FACTS, made)
    )
