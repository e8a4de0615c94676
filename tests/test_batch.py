"""One batch: records in, records out."""

import hashlib
import re
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from ecgwatch import alerts, batch, bundle, logs, messages
from ecgwatch.batch import PatientPartitions, Received, Record, Rules, cut, process
from ecgwatch.messages import JSON, MSGPACK, Beat, encode_beats
from ecgwatch.patients import Patient, Patients
from ecgwatch.scorer import Scorer, score_each
from tests.integration.traffic import beat


@pytest.fixture(scope="module")
def rules() -> Rules:
    loaded = bundle.load("default")
    return Rules(Scorer(loaded, "cpu"), loaded, loaded.threshold(10.0), "scores", "alerts", "dead", 512)


def received(
    value: bytes | None, key: bytes | None = b"p", content_type: str | None = MSGPACK, offset: int = 7
) -> Received:
    return Received("beats", 3, offset, key, value, content_type)


def message(*beats: Beat) -> Received:
    return received(encode_beats(beats, MSGPACK), beats[0].patient.encode())


def too_short(number: int) -> Beat:
    one = beat(number)
    return replace(one, samples=one.samples[: one.r_index + 5])


def scored_ids(records: list[Record]) -> list[str]:
    return [messages.decode_score(record.value or b"").id for record in records if record.topic == "scores"]


def test_a_batch_of_nothing_gives_nothing(rules: Rules):
    assert process([], rules, {}).records == []


def test_scores_stand_in_the_order_of_the_batch_and_are_keyed_by_patient(rules: Rules):
    found = process([message(beat(n)) for n in range(5)], rules, {})
    assert scored_ids(found.records) == [beat(n).id for n in range(5)]
    assert [r.key for r in found.records if r.topic == "scores"] == [beat(n).patient.encode() for n in range(5)]
    assert found.scored == 5


def test_json_and_binary_messages_of_the_same_beat_get_the_same_score(rules: Rules):
    one = replace(beat(0), samples=beat(0).samples.round(3), rr_ms=beat(0).rr_ms.round(2))
    key = one.patient.encode()
    both = [received(encode_beats([one], form), key, form) for form in (JSON, MSGPACK)]
    values = [r.value for r in process(both, rules, {}).records if r.topic == "scores"]
    scores = [messages.decode_score(value or b"").score for value in values]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_without_a_score_topic_only_alerts_are_published(rules: Rules):
    found = process([message(beat(n)) for n in range(20)], replace(rules, scores="", threshold=-1e9), {})
    assert {record.topic for record in found.records} == {"alerts"}
    assert (found.alerts, len(found.records)) == (20, 20)


def test_the_score_record_of_an_alert_says_so(rules: Rules):
    found = process([message(beat(0))], replace(rules, threshold=-1e9), {})
    assert [record.topic for record in found.records] == ["scores", "alerts"]
    assert messages.decode_score(found.records[0].value or b"").alert


def test_a_bad_message_is_a_dead_letter_with_its_bytes_key_reason_and_place(rules: Rules):
    (letter,) = process([received(b"{", b"k", JSON)], rules, {}).records
    assert (letter.topic, letter.key, letter.value) == ("dead", b"k", b"{")
    assert dict(letter.headers) == {
        "ecgwatch-reason": b"not-json",
        "ecgwatch-error": b"the value is not valid JSON",
        "ecgwatch-topic": b"beats",
        "ecgwatch-partition": b"3",
        "ecgwatch-offset": b"7",
        "content-type": b"application/json",
    }


def test_a_dead_letter_has_the_content_type_that_the_message_had_if_any_and_not_too_long(rules: Rules):
    forms = [MSGPACK, None, "�", "x" * 1_000_000]
    letters = process([received(b"?", content_type=form) for form in forms], rules, {}).records
    found = [dict(letter.headers).get("content-type") for letter in letters]
    assert found == [MSGPACK.encode(), None, "�".encode(), b"x" * batch.MAX_CONTENT_TYPE]


def test_the_other_beats_of_a_message_with_an_unfit_beat_are_scored_and_it_is_one_dead_letter(rules: Rules):
    beats = [replace(b, patient="p") for b in (beat(0), too_short(1), beat(2), too_short(3))]
    found = process([message(beat(9)), message(*beats), message(beat(10))], rules, {})
    assert scored_ids(found.records) == [beat(9).id, beats[0].id, beats[2].id, beat(10).id]
    (letter,) = [record for record in found.records if record.topic == "dead"]
    assert letter.value == encode_beats(beats, MSGPACK)
    assert dict(letter.headers)["ecgwatch-reason"] == b"too-short"
    assert dict(letter.headers)["ecgwatch-error"].startswith(b"beat 1 (and 1 more of its beats): ")
    assert (found.scored, found.dead_letters) == (4, 1)


def with_nan(number: int) -> Beat:
    one = beat(number)
    samples = one.samples.copy()
    samples[3] = np.nan
    return replace(one, samples=samples)


def test_a_beat_of_absurd_samples_is_refused_alone_whatever_is_known_of_its_patient(rules: Rules):
    good = [replace(b, patient="p") for b in (beat(0), beat(2))]
    absurd = replace(beat(1), patient="p", samples=beat(1).samples * np.float32(1e19))
    for patients in ({}, learned(rules)):
        found = process([message(good[0], absurd, good[1])], rules, patients)
        assert scored_ids(found.records) == [b.id for b in good]
        (letter,) = [record for record in found.records if record.topic == "dead"]
        assert dict(letter.headers)["ecgwatch-reason"] == b"out-of-range"


def learned(rules: Rules) -> Patients:
    """What is known of patient p after 40 beats."""
    patients: Patients = {}
    process([message(*(replace(beat(n), patient="p", r_time_ms=n - 40_000) for n in range(40)))], rules, patients)
    return patients


def test_beats_refused_by_decoder_and_contract_are_one_dead_letter_that_names_the_first(rules: Rules):
    beats = [replace(b, patient="p") for b in (beat(0), too_short(1), with_nan(2), beat(3))]
    found = process([message(*beats)], rules, {})
    assert scored_ids(found.records) == [beats[0].id, beats[3].id]
    (letter,) = [record for record in found.records if record.topic == "dead"]
    said = dict(letter.headers)
    assert said["ecgwatch-reason"] == b"too-short"
    assert said["ecgwatch-error"].startswith(b"beat 1 (and 1 more of its beats): ")


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_failed_at", {})


def stands_for_a_mistake(rules: Rules, typical: np.ndarray) -> Patients:
    """What is known of patient bad is what no worker learns."""
    patients = learned(rules)
    patients["bad"] = {beat(0).lead: Patient(first_ms=0, last_ms=0, typical=typical, learned=True)}
    return patients


def test_a_beat_that_fails_in_a_way_nobody_foresaw_is_refused_alone(rules: Rules, caplog: pytest.LogCaptureFixture):
    good = [replace(beat(n), patient="p") for n in range(3)]
    batch_ = [
        message(good[0], replace(too_short(9), patient="p")),
        message(replace(beat(4), patient="bad")),
        message(*good[1:]),
    ]
    found = process(batch_, rules, stands_for_a_mistake(rules, np.zeros(3, np.float32)))
    assert scored_ids(found.records) == [b.id for b in good]
    short, letter = [record for record in found.records if record.topic == "dead"]
    assert (letter.key, letter.value) == (b"bad", batch_[1].value)
    said = dict(letter.headers)
    assert (said["ecgwatch-reason"], said["ecgwatch-error"]) == (
        b"internal",
        b"beat 0: an error in ecgwatch: ValueError",
    )
    assert dict(short.headers)["ecgwatch-error"].startswith(b"beat 1: ")
    (line,) = caplog.messages
    assert re.fullmatch(r"ecgwatch failed on a beat or a message, .*: ValueError at patients.py:\d+", line)


def test_a_message_that_fails_in_a_way_nobody_foresaw_is_a_dead_letter_and_the_others_are_scored(
    rules: Rules, caplog: pytest.LogCaptureFixture
):
    not_bytes = received(5, b"Jane Roe")  # type: ignore[arg-type]
    found = process([message(beat(0)), not_bytes, message(beat(1))], rules, {})
    assert scored_ids(found.records) == [beat(0).id, beat(1).id]
    (letter,) = [record for record in found.records if record.topic == "dead"]
    assert dict(letter.headers)["ecgwatch-error"] == b"an error in ecgwatch: TypeError"
    assert re.fullmatch(r"ecgwatch failed on a beat or a message, .*: TypeError at messages.py:\d+", caplog.messages[0])


def test_a_beat_that_the_model_gives_no_number_is_refused_alone(rules: Rules):
    known = stands_for_a_mistake(rules, np.full(rules.scorer.contract.samples, np.nan, np.float32))
    bad = replace(beat(1), patient="bad")
    found = process([message(beat(0)), message(bad), message(beat(2))], rules, known)
    assert scored_ids(found.records) == [beat(0).id, beat(2).id]
    (letter,) = [record for record in found.records if record.topic == "dead"]
    assert dict(letter.headers)["ecgwatch-reason"] == b"no-score"
    assert (found.scored, found.dead_letters) == (2, 1)
    assert process([message(bad)], rules, known).dead_letters == 1  # alone too: the model is whole


def test_a_message_of_more_beats_than_a_batch_is_scored_in_parts_and_names_the_right_beat(rules: Rules):
    beats = [replace(beat(n), patient="p") for n in range(10)]
    beats[7] = replace(too_short(7), patient="p")
    found = process([message(*beats)], replace(rules, max_batch=3), {})
    assert scored_ids(found.records) == [b.id for n, b in enumerate(beats) if n != 7]
    (letter,) = [record for record in found.records if record.topic == "dead"]
    assert dict(letter.headers)["ecgwatch-error"].startswith(b"beat 7: ")


def test_dead_letters_hold_neither_signal_nor_identity_in_their_headers(rules: Rules):
    one = replace(too_short(0), patient="Jane Roe")
    (letter,) = process([message(one)], rules, {}).records
    assert b"Jane" not in b"".join(value for _, value in letter.headers)


def test_a_cut_dead_letter_keeps_the_beginning_and_tells_length_and_hash():
    value = np.random.default_rng(0).bytes(1_000_000)
    whole = Record("dead", b"key", value, (("ecgwatch-reason", b"not-json"),))
    small = cut(whole)
    assert (small.key, small.value) == (b"key", value[: batch.PREFIX_BYTES])
    assert dict(small.headers) == {
        "ecgwatch-reason": b"not-json",
        "ecgwatch-length": b"1000000",
        "ecgwatch-sha256": hashlib.sha256(value).hexdigest().encode(),
    }


def test_a_cut_dead_letter_drops_a_giant_key():
    assert cut(Record("dead", b"k" * 900_000, b"value")).key is None


def test_a_patient_is_reported_once_when_seen_on_another_partition():
    seen = PatientPartitions()
    assert seen.moved({"a": 0, "b": 1}) == []
    assert seen.moved({"a": 2, "b": 1}) == [("a", 0, 2)]
    assert seen.moved({"a": 0}) == []
    assert seen.moved({"a": 2}) == []


def test_only_a_bounded_number_of_patients_is_remembered():
    seen = PatientPartitions(limit=2)
    seen.moved({"a": 0})
    seen.moved({"b": 0})
    seen.moved({"c": 0})
    assert seen.moved({"a": 1}) == []
    assert seen.moved({"c": 1}) == [("c", 0, 1)]


def test_an_alert_says_of_its_beat_what_the_score_record_says(rules: Rules):
    beats = [replace(beat(n), patient="p") for n in range(20)]
    found = process([message(*beats)], replace(rules, threshold=-1e9), {}).records
    scores = [messages.decode_score(record.value or b"") for record in found if record.topic == "scores"]
    raised = [record for record in found if record.topic == "alerts"]
    assert [record.key for record in raised] == [b"p"] * len(scores) == [b"p"] * 20
    for score, record in zip(scores, raised, strict=True):
        said, expected = (
            msgspec.structs.asdict(messages.decode_alert(record.value or b"")),
            msgspec.structs.asdict(score),
        )
        assert said.pop("reason") == alerts.reason(score.nse, score.distance, rules.bundle)
        assert expected.pop("alert")
        assert said == expected
    assert {score.baseline for score in scores} == {"none", "learning"}


def test_a_beat_whose_score_is_just_the_threshold_is_no_alert_and_one_above_it_is(rules: Rules):
    beats = [replace(beat(n), patient="p") for n in range(20)]
    scores = sorted(one.score for one in score_each(beats, rules.scorer, {}))
    found = process([message(*beats)], replace(rules, threshold=scores[9]), {})
    said = [messages.decode_score(record.value or b"") for record in found.records if record.topic == "scores"]
    assert sum(score.alert for score in said) == found.alerts == 10
    assert [score.id for score in said if score.alert] == [
        messages.decode_alert(record.value or b"").id for record in found.records if record.topic == "alerts"
    ]


@pytest.mark.parametrize(
    ("nse_above", "distance_above", "said"),
    [
        (True, False, ["reconstruction error"]),
        (False, True, ["map distance"]),
        (True, True, ["map distance", "reconstruction error"]),
        (False, False, ["together, each within 99 %"]),
    ],
)
def test_the_reason_names_the_terms_that_are_beyond_their_own_limit_and_no_other(
    rules: Rules, nse_above: bool, distance_above: bool, said: list[str]
):
    limits = [scale.limit for scale in (rules.bundle.manifest.nse, rules.bundle.manifest.distance)]
    nse, distance = (
        limit * (1.01 if above else 1) for limit, above in zip(limits, (nse_above, distance_above), strict=True)
    )
    parts = alerts.reason(nse, distance, rules.bundle).split("; ")
    assert len(parts) == len(said) and all(word in part for word, part in zip(said, parts, strict=True))
