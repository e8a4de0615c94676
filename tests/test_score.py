"""`ecgwatch score`: one line for each annotated beat of a WFDB record."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from ecgwatch import bundle
from ecgwatch.config import Model, Settings
from ecgwatch.errors import ConfigError, DataError
from ecgwatch.patients import prepare
from ecgwatch.records import Record, beats_of, read_wfdb
from ecgwatch.score import ScoredBeat, score_records, scored_beats
from ecgwatch.scorer import Scorer
from tests.wfdb_records import excerpt, write_record

SETTINGS = Settings(model=Model(provider="cpu"))


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(bundle.load("default"), "cpu")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_record(tmp_path_factory.mktemp("records"), excerpt())


def lines(record: Path, settings: Settings = SETTINGS) -> list[ScoredBeat]:
    out = io.StringIO()
    score_records(settings, [record], out=out)
    return [msgspec.json.decode(line, type=ScoredBeat) for line in out.getvalue().splitlines()]


def test_every_annotated_beat_has_its_line_in_order(record: Path):
    annotated = read_wfdb(record)
    wanted = [("233", sample, symbol) for sample, symbol in zip(annotated.r_samples, annotated.symbols, strict=True)]
    assert [(line.record, line.sample, line.annotation) for line in lines(record)] == wanted


def test_the_numbers_are_those_of_the_scorer(record: Path, scorer: Scorer):
    prepared = prepare(beats_of(read_wfdb(record), "anyone"), scorer.contract, {})
    scores = scorer.score(prepared.x)
    scored = [line for line in lines(record) if line.refused is None]
    found = np.array([(line.nse, line.distance, line.score) for line in scored])
    assert len(scored) == len(prepared.kept) > 20
    np.testing.assert_allclose(found, np.column_stack(scores), rtol=1e-5)


def test_a_beat_above_the_threshold_is_an_alert_and_no_other(record: Path, scorer: Scorer):
    scores = [line.score for line in lines(record) if line.score is not None]
    threshold = sorted(scores)[len(scores) // 2]  # that of a beat: which is not above it
    scored = list(scored_beats(scorer, read_wfdb(record), threshold))
    assert [line.alert for line in scored] == [
        None if line.score is None else line.score > threshold for line in scored
    ]
    assert {True, False} <= {line.alert for line in scored}


def test_a_beat_that_does_not_fit_the_model_says_why_and_has_no_numbers(record: Path):
    first = lines(record)[0]  # the record begins shortly before it
    assert first.refused == "too-short"
    assert (first.nse, first.distance, first.score, first.alert) == (None, None, None, None)


def test_beats_beside_a_gap_are_refused_and_counted_and_the_others_are_scored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    whole = excerpt()
    signal = whole.signal.copy()
    signal[3000:3400] = np.nan  # WFDB's "no sample"
    found = lines(write_record(tmp_path, replace(whole, signal=signal)))
    # what a beat message carries around R
    beside = [3000 - 1.75 * 360 < line.sample < 3400 + 0.5 * 360 for line in found]
    assert [line.refused == "not-finite" for line in found] == beside
    assert len([line for line in found if line.score is not None]) > 15
    assert caplog.messages == [
        f"record {tmp_path / '233'}: {sum(beside)} of {len(found)} beats are not scored, the signal has a gap there"
    ]


def test_the_size_of_a_batch_changes_nothing(record: Path, scorer: Scorer):
    many, few = (list(scored_beats(scorer, read_wfdb(record), 1.0, batch)) for batch in (256, 3))
    for one, other in zip(many, few, strict=True):
        assert (one.sample, one.refused, one.alert) == (other.sample, other.refused, other.alert)
        assert one.score == pytest.approx(other.score, abs=1e-3)


def test_csv_and_json_lines_say_the_same(record: Path):
    out = io.StringIO()
    count = score_records(SETTINGS, [record, record], form="csv", out=out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert count == len(rows) == 2 * len(lines(record))
    for row, line in zip(rows, lines(record), strict=False):
        assert row == {key: "" if value is None else str(value) for key, value in msgspec.structs.asdict(line).items()}


def test_a_json_line_has_the_documented_fields(record: Path):
    out = io.StringIO()
    score_records(SETTINGS, [record], out=out)
    names = ["record", "sample", "annotation", "nse", "distance", "score", "alert", "baseline", "refused"]
    assert list(json.loads(out.getvalue().splitlines()[0])) == names


def test_a_missing_record_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="999"):
        score_records(SETTINGS, [tmp_path / "999"], out=io.StringIO())


def test_a_missing_lead_is_named_with_those_there_are(record: Path):
    with pytest.raises(DataError, match="no lead V5; it has MLII"):
        score_records(SETTINGS, [record], lead="V5", out=io.StringIO())


def test_a_rate_the_bundle_does_not_know_is_refused_before_anything_is_written(record: Path):
    out = io.StringIO()
    settings = msgspec.convert({"alerts": {"false_alerts_per_hour": 0.123}}, Settings)
    with pytest.raises(ConfigError, match="false_alerts_per_hour"):
        score_records(settings, [record], out=out)
    assert out.getvalue() == ""


def test_another_sampling_frequency_and_another_lead_give_nearly_the_same_scores(tmp_path: Path, scorer: Scorer):
    """The same signal recorded at 500 Hz as lead V5: every beat is scored, and alike."""
    here = excerpt(seconds=60.0)
    t = np.arange(round(len(here.signal) * 500 / 360)) / 500
    signal = np.interp(t, np.arange(len(here.signal)) / 360, here.signal).astype(np.float32)
    at = np.round(here.r_samples * 500 / 360).astype(np.int64)
    other = read_wfdb(write_record(tmp_path, Record("233", 500.0, "V5", signal, at, here.symbols)))
    pairs = list(zip(scored_beats(scorer, here, 1.0), scored_beats(scorer, other, 1.0), strict=True))
    assert [(a.refused, a.baseline) for a, _ in pairs] == [(b.refused, b.baseline) for _, b in pairs]
    scores = np.array([(a.score, b.score) for a, b in pairs if a.score is not None])
    assert len(scores) > 50
    assert np.corrcoef(np.log(scores - scores.min() + 1).T)[0, 1] > 0.98
