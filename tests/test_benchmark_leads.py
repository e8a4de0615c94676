"""Two leads as one input beside one: what the inputs hold, what the models tell apart, what the page says."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgwatch import cli
from ecgwatch.beats import Bedside, bedside_parts
from ecgwatch.errors import DataError
from ecgwatch.records import read_wfdb
from tests.test_benchmark_folds import SMALL, patients
from tests.test_pipeline import made_record
from training.benchmark import leads
from training.benchmark.leads import Row
from training.benchmark.rows import read_csv
from training.datasets.arrhythmia import record_beats
from training.datasets.dataset import Dataset
from training.evaluate import Predictions

CONTRACT = Bedside(learn_s=10.0)
SAMPLES = CONTRACT.samples
RECORDS = ("106", "108", "101", "100", "103")  # two train, one sets the scales, two are tested


def two_leads() -> Dataset:
    """Beats whose anomalies show in the second lead alone."""
    plain, telling = patients(len(RECORDS), 0.0), patients(len(RECORDS), 1.0)
    classes = plain.classes.copy()
    abnormal = np.flatnonzero(classes != "N")
    classes[abnormal] = np.resize(list("SVF"), len(abnormal))
    both = leads.paired(plain, telling)
    return replace(both, classes=classes, records=np.repeat(RECORDS, len(plain) // len(RECORDS)))


def benchmark(folder: Path, runs: str = "runs") -> int:
    places = ["--data", str(folder), "--runs", str(folder / runs), "--out", str(folder / "out")]
    return cli.main(["benchmark", "leads", "--seeds", "0", *places])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One seed, both runs, small models."""
    folder = tmp_path_factory.mktemp("leads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leads, "load", lambda *_: two_leads())
        patch.setattr(leads, "BEDSIDE", SMALL)
        assert benchmark(folder) == 0
    return folder


def test_what_the_second_lead_alone_shows_is_told_by_both_and_not_by_the_first(made: Path) -> None:
    rows = read_csv(made / "out" / "leads.csv", Row)
    found = {count: cell(rows, "0", count, "all") for count in ("1", "2", "2 - 1")}
    assert 0.3 < found["1"].auroc < 0.7
    assert found["2"].auroc > 0.95
    assert found["2 - 1"].auroc == pytest.approx(found["2"].auroc - found["1"].auroc, abs=1e-4)
    assert found["2 - 1"].lower > 0.2
    page = (made / "out" / "leads.md").read_text()
    assert "higher: all, without 232, S, V, F, median over records; lower: none" in page
    assert "calibration" in page.split("**S with")[0] and "draw next to nothing in two of three" in page


def test_a_seed_that_is_done_is_not_trained_again(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [made / "out" / name for name in ("leads.csv", "leads.md")]
    before = [file.read_text() for file in files]
    for name in ("load", "predict"):
        monkeypatch.setattr(leads, name, lambda *_: pytest.fail("trained again"))
    for runs in ("runs", "of another machine"):
        assert benchmark(made, runs) == 0
        assert [file.read_text() for file in files] == before
    assert capsys.readouterr().out.count("leads.csv holds it") == 4


def by_hand(score: np.ndarray, abnormal: np.ndarray) -> float:
    """Share of the pairs in which the abnormal beat is above the normal one, ties half."""
    pairs = list(itertools.product(score[abnormal], score[~abnormal]))
    return sum((a > n) + (a == n) / 2 for a, n in pairs) / len(pairs)


def predictions(seed: int, above: float) -> Predictions:
    """Beats of four records, scored by chance, the abnormal ones by so much higher."""
    rng = np.random.default_rng(seed)
    classes = np.array(list("NNNNNNNVSF" * 12))
    records = np.repeat(["100", "103", "200", "232"], 30)
    score = rng.normal(size=120) + above * (classes != "N")
    return Predictions(*([score] * 3), classes, records, np.arange(120), classes == "N")


def rows_of(found: dict[tuple[int, int], Predictions], seeds: Sequence[int]) -> list[Row]:
    return list(leads.figures({key: leads.measure(one) for key, one in found.items()}, seeds))


def cell(rows: Sequence[Row], seeds: str, count: str, column: str) -> Row:
    (found,) = (row for row in rows if (row.seeds, row.leads, row.score, row.column) == (seeds, count, "S", column))
    return found


FOUND = {(seed, count): predictions(10 * seed + count, 0.5 * count) for seed in (0, 1) for count in (1, 2)}


def test_the_page_shows_the_auroc_of_each_run_their_difference_and_the_mean() -> None:
    rows = rows_of(FOUND, [0, 1])
    without = {
        key: by_hand(one.score[one.records != "232"], ~one.normal[one.records != "232"]) for key, one in FOUND.items()
    }
    lines = leads.page(rows).split("## S\n\n")[1].split("\n\n")[0].splitlines()
    shown = {}
    for line in lines[2:]:
        seeds, count, _, second, *_ = (part.strip() for part in line.strip("|").split("|"))
        shown[seeds, count] = second.split(" ")[0]
    mean = {count: (without[0, count] + without[1, count]) / 2 for count in (1, 2)}
    expected = {(str(seed), str(count)): f"{value:.3f}" for (seed, count), value in without.items()}
    expected |= {(str(seed), "2 - 1"): f"{without[seed, 2] - without[seed, 1]:+.3f}" for seed in (0, 1)}
    expected |= {("0 1, mean", str(count)): f"{value:.3f}" for count, value in mean.items()}
    assert shown == expected | {("0 1, mean", "2 - 1"): f"{mean[2] - mean[1]:+.3f}"}


def test_a_class_is_compared_with_normal_beats_without_record_232() -> None:
    one = FOUND[0, 2]
    kept = np.isin(one.classes, ["N", "V"]) & (one.records != "232")
    found = cell(rows_of(FOUND, [0]), "0", "2", "V").auroc
    assert found == pytest.approx(by_hand(one.score[kept], ~one.normal[kept]))


def test_a_difference_takes_both_runs_from_the_same_patients() -> None:
    """Two runs alike differ by nothing in any draw, however much the patients differ."""
    same = rows_of({(0, 1): FOUND[0, 1], (0, 2): FOUND[0, 1]}, [0])
    assert cell(same, "0", "1", "all").upper - cell(same, "0", "1", "all").lower > 0.02
    assert {(row.auroc, row.lower, row.upper) for row in same if row.leads == "2 - 1"} == {(0.0, 0.0, 0.0)}


def test_of_what_is_not_there_yet_there_is_no_row() -> None:
    rows = rows_of({key: FOUND[key] for key in ((0, 1), (0, 2), (1, 1))}, [0, 1])
    assert {(row.seeds, row.leads) for row in rows} == {
        ("0", "1"),
        ("0", "2"),
        ("0", "2 - 1"),
        ("1", "1"),
        ("0 1", "1"),
    }
    assert "seeds: 0)" in leads.reading(rows)
    assert leads.reading(rows_of({(0, 1): FOUND[0, 1]}, [0])) == "No seed has both runs yet."


def test_the_reading_follows_from_the_intervals() -> None:
    intervals = {"all": (0.01, 0.02), "V": (-0.02, -0.01), "S": (-0.01, 0.01)}
    rows = [Row("0", "2 - 1", "S", column, sum(both) / 2, *both) for column, both in intervals.items()]
    assert "higher: all; lower: V; the interval of the difference holds zero: S" in leads.reading(rows)


def write(folder: Path, of_leads: dict[str, int]) -> list[str]:
    """Write a record with signals of these names, each made with a seed of its own; returns its name in a list."""
    records = {name: made_record("7", seed, 60) for name, seed in of_leads.items()}
    first = next(iter(records.values()))
    count = min(len(one.signal) for one in records.values())
    wfdb.wrsamp(
        "7",
        fs=first.fs_hz,
        units=["mV"] * len(records),
        sig_name=list(records),
        p_signal=np.stack([one.signal[:count] for one in records.values()], axis=1).astype(float),
        fmt=["16"] * len(records),
        write_dir=str(folder),
    )
    wfdb.wrann("7", "atr", first.r_samples, list(first.symbols), write_dir=str(folder))
    return ["7"]


def test_the_first_lead_is_the_default_s_and_the_second_the_other_with_its_own_typical_beat(tmp_path: Path) -> None:
    data = leads.load(tmp_path, CONTRACT, write(tmp_path, {"V5": 1, "MLII": 2}))
    alone = {lead: record_beats(read_wfdb(tmp_path / "7", lead), CONTRACT, ["N"]) for lead in ("MLII", "V5")}
    np.testing.assert_array_equal(leads.first_lead(data).x, alone["MLII"].x)
    np.testing.assert_array_equal(data.classes, alone["MLII"].classes)
    beat, typical, rhythm = bedside_parts(data.x)
    of_v5 = bedside_parts(alone["V5"].x)
    np.testing.assert_array_equal(beat[:, SAMPLES:], of_v5[0])
    np.testing.assert_array_equal(typical[:, SAMPLES:], of_v5[1])
    assert len(data) > 30 and rhythm.shape[1] == 2
    assert not np.allclose(typical[:, :SAMPLES], typical[:, SAMPLES:], atol=0.05)


def test_a_record_with_one_lead_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="7: V5 is its only lead"):
        leads.load(tmp_path, CONTRACT, write(tmp_path, {"V5": 1}))


def test_a_beat_that_one_lead_cannot_score_is_left_out() -> None:
    first = patients(1, 0.0)
    second = patients(1, 1.0)
    rows = np.r_[5:70]
    cut = replace(second, **{name: getattr(second, name)[rows] for name in ("x", "classes", "records", "samples")})
    both = leads.paired(first, cut)
    np.testing.assert_array_equal(both.samples, first.samples[5:])
    np.testing.assert_array_equal(leads.first_lead(both).x, first.x[5:])
    np.testing.assert_array_equal(bedside_parts(both.x)[0][:, SAMPLES:], second.x[5:, :SAMPLES])
