"""How the demo counts."""

import msgspec
import pytest

from ecgwatch.demo.tally import Tally, Truth
from ecgwatch.messages import VERSION, Alert, Score


def tally(**classes):
    """Make one patient, bed-1, with beats a, b, ... of these classes, 0.5 s after one another; all sent at 0."""
    made = Tally({name: Truth("bed-1", aami, rr_s=0.5) for name, aami in classes.items()})
    for name in classes:
        made.sent(name, now_s=0.0)
    return made


def score(beat_id, alert):
    return Score(VERSION, beat_id, "bed-1", "MLII", 0, 0.1, 1.0, 3.0 if alert else 1.0, 2.0, alert, "m" * 64)


def alert(beat_id):
    return Alert(VERSION, beat_id, "bed-1", "MLII", 0, 3.0, 2.0, 0.1, 1.0, "map distance", "m" * 64)


def test_an_alert_on_a_ventricular_beat_is_right():
    judged = tally(a="V").alerted(alert("a"))
    assert judged.is_right
    assert judged.verdict == "right: ventricular ectopic beat"


def test_an_alert_on_a_normal_beat_is_false():
    made = tally(a="N")
    assert made.alerted(alert("a")).verdict == "false alert: normal beat"
    assert (made.total.right_alerts, made.total.false_alerts) == (0, 1)


def test_an_abnormal_beat_without_alert_is_missed():
    made = tally(a="V", b="S", c="N")
    for name, is_alert in (("a", True), ("b", False), ("c", False)):
        made.scored(score(name, is_alert), now_s=1.0)
    assert (made.total.abnormal, made.total.found, made.total.missed) == (2, 1, 1)
    assert made.total.sensitivity == 0.5


def test_repeats_of_scores_and_alerts_count_once():
    made = tally(a="V")
    for _ in range(3):
        made.scored(score("a", True), now_s=1.0)
        made.alerted(alert("a"))
    assert (made.total.scored, made.total.alerts) == (1, 1)
    assert made.alerted(alert("a")) is None


def test_false_alerts_per_hour_are_those_of_normal_rhythm():
    made = tally(a="N", b="N", c="V")
    for name in "abc":
        made.scored(score(name, True), now_s=1.0)
        made.alerted(alert(name))
    assert made.total.false_alerts_per_hour == 2 * 3600  # two in one second of normal rhythm


def test_no_rate_is_told_before_there_is_anything_to_divide_by():
    assert tally(a="V").total.false_alerts_per_hour is None
    assert tally(a="V").total.sensitivity is None


def test_a_beat_is_outstanding_until_it_is_scored_or_refused():
    made = tally(a="N", b="N")
    assert made.outstanding == 2
    made.scored(score("a", False), now_s=1.0)
    made.refused("bed-1")
    assert made.outstanding == 0


def test_a_scored_beat_is_outstanding_until_its_alert_is_heard_in_whichever_order_they_come():
    made = tally(a="N", b="V")
    made.scored(score("a", True), now_s=1.0)
    made.alerted(alert("b"))
    made.scored(score("b", True), now_s=1.0)
    assert made.outstanding == 1
    made.alerted(alert("a"))
    assert made.outstanding == 0


def test_a_refusal_that_comes_twice_hides_no_beat_that_waits():
    made = tally(a="N")
    made.refused("bed-1")
    made.refused("bed-1")
    assert made.outstanding == 0


def test_beats_that_came_before_their_typical_beat_was_learned_are_counted():
    made = tally(a="N", b="N", c="N", d="N")
    for name, known in (("a", "none"), ("b", "learning"), ("c", "learned"), ("d", None)):
        made.scored(msgspec.structs.replace(score(name, False), baseline=known), now_s=1.0)
    assert made.total.learning == 2


def test_latency_is_the_median_time_from_sending_to_the_score():
    made = tally(a="N", b="N", c="N")
    for name, now_s in (("a", 0.01), ("b", 0.02), ("c", 5.0)):
        made.scored(score(name, False), now_s)
    assert made.latency_ms == pytest.approx(20)
