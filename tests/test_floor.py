"""The floor: prematurity, the distance to the patient's own typical beat, and both together."""

import numpy as np
import pytest

from ecgwatch.errors import DataError
from ecgwatch.records import Record, read_wfdb
from training import floor

FS_HZ = 100.0
BEAT_S = 0.8


def bump(width_s: float) -> np.ndarray:
    """A QRS of one millivolt."""
    t = np.arange(-0.2, 0.2, 1 / FS_HZ)
    return np.exp(-((t / width_s) ** 2)).astype(np.float32)


def record(minutes: float = 7, odd: dict[int, str] | None = None, gain: float = 1.0, drift_mv: float = 0.0) -> Record:
    """A regular rhythm; `odd` names beats that are early ("S") or early and broad ("V")."""
    odd = odd or {}
    count = int(minutes * 60 / BEAT_S) - 2
    r = np.round((1 + np.arange(count)) * BEAT_S * FS_HZ).astype(np.int64)
    for number in odd:
        r[number] -= round(0.3 * FS_HZ)
    signal = np.linspace(0, drift_mv, int(minutes * 60 * FS_HZ), dtype=np.float32)
    for number, at in enumerate(r):
        shape = bump(0.08 if odd.get(number) == "V" else 0.02) * gain
        signal[at - 20 : at + 20] += shape
    symbols = tuple({"S": "A", "V": "V"}.get(odd.get(number, ""), "N") for number in range(count))
    return Record("made", FS_HZ, "MLII", signal, r, symbols)


def test_an_early_beat_is_premature_by_the_log_of_its_rr_ratio():
    made = record(odd={100: "S"})
    assert floor.prematurity(made)[100] == pytest.approx(-np.log((BEAT_S - 0.3) / BEAT_S))


def test_a_regular_beat_is_not_premature():
    assert np.abs(floor.prematurity(record())).max() == pytest.approx(0)


def test_the_beats_own_rr_is_no_part_of_what_it_is_compared_with():
    made = Record("made", FS_HZ, "MLII", np.zeros(1000, np.float32), np.array([100, 180, 220]), ("N", "N", "A"))
    assert floor.prematurity(made).tolist() == [0, 0, pytest.approx(-np.log(0.4 / 0.8))]


def test_prematurity_does_not_look_ahead():
    whole = record(odd={100: "S"})
    cut = Record("cut", FS_HZ, "MLII", whole.signal, whole.r_samples[:101], whole.symbols[:101])
    assert floor.prematurity(cut).tolist() == floor.prematurity(whole)[:101].tolist()


def test_the_typical_beat_is_hardly_moved_by_many_ectopic_beats():
    rng = np.random.default_rng(0)
    normal, ectopic = rng.normal(0, 1, (550, 50)), rng.normal(20, 1, (450, 50))
    assert np.abs(floor.typical_beat(np.concatenate([normal, ectopic]))).mean() < 0.3  # a plain median: 1.3


def test_a_broad_beat_has_the_largest_residual_and_others_none():
    made = record(odd={450: "V"})
    measured = floor.measure(made)
    odd = measured.classes == "V"
    assert odd.sum() == 1
    assert measured.residual[odd] > 0.1
    # the neighbours' windows hold a part of the early beat; beyond them nothing differs
    assert np.sort(measured.residual)[:-3].max() < 1e-6


@pytest.mark.parametrize("change", [{"gain": 3.0}, {"drift_mv": 5.0}], ids=str)
def test_the_residual_depends_neither_on_gain_nor_on_a_drifting_baseline(change):
    plain, changed = (floor.measure(record(odd={450: "V"}, **kw)) for kw in ({}, change))
    assert changed.residual == pytest.approx(plain.residual, abs=0.005)
    assert plain.residual.max() > 0.1


def test_only_beats_after_five_minutes_are_evaluated():
    made = record(minutes=6)
    assert len(floor.measure(made).residual) == (made.r_samples >= 300 * FS_HZ).sum() < len(made.r_samples)


def test_a_record_that_begins_after_five_minutes_is_refused():
    made = record(minutes=6)
    late = made.r_samples >= 300 * FS_HZ
    cut = Record("204", FS_HZ, "MLII", made.signal, made.r_samples[late], tuple("N" for _ in range(late.sum())))
    with pytest.raises(DataError, match="record 204: no beat in the first 300 s"):
        floor.measure(cut)


def test_surprise_is_the_tail_probability_among_normal_values():
    normal = np.arange(99.0)
    assert floor.surprise(np.array([-1.0, 49.0, 1000.0]), normal) == pytest.approx(-np.log([1.0, 0.51, 0.01]))


def test_both_adds_half_the_prematurity_to_the_residual():
    reference = floor.Measured(
        "r", np.array(["N"] * 99 + ["V"]), np.r_[np.arange(99.0), 1e9], np.r_[np.arange(99.0), 1e9], np.arange(100)
    )
    tested = floor.Measured("t", np.array(["N", "V"]), np.array([-1.0, 1e6]), np.array([-1.0, 1e6]), np.arange(2))
    both = floor.floor_scores([tested], [reference])["both"]
    assert both[0] == pytest.approx([0, 1.5 * np.log(100)])  # the reference's abnormal beat is in no tail


def test_the_table_leaves_232_out_of_its_second_column():
    good = floor.Measured("100", np.array(["N", "N", "V"]), np.array([0.0, 1.0, 2.0]), np.zeros(3), np.arange(3))
    bad = floor.Measured("232", np.array(["N", "N", "S"]), np.array([0.0, 1.0, -1.0]), np.zeros(3), np.arange(3))
    scores = {"prematurity": [good.prematurity, bad.prematurity]}
    assert floor.auroc_table([good, bad], scores) == {"prematurity": {"all": 0.5, "without 232": 1.0, "V": 1.0}}


def test_without_records_it_ends_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ECGWATCH_DATA_DIRECTORY", str(tmp_path))
    with pytest.raises(SystemExit) as exit_:
        floor.main([])
    assert (exit_.value.code, capsys.readouterr().err) == (
        DataError.exit_code,
        f"record {tmp_path / 'mitdb' / '100'}: 100.hea is missing\n",
    )


@pytest.mark.data
def test_on_real_records_both_numbers_beat_either_alone(mitdb):
    tested, reference = (
        [floor.measure(read_wfdb(mitdb / name)) for name in names] for names in (["200", "233"], ["119", "208"])
    )
    table = floor.auroc_table(tested, floor.floor_scores(tested, reference))
    assert table["both"]["all"] > max(table["prematurity"]["all"], table["residual"]["all"]) > 0.9


def test_an_rr_is_compared_with_the_ten_before_it():
    r = np.cumsum([100, *[100] * 9, *[50] * 4, 50])
    made = Record("made", 100.0, "MLII", np.zeros(2000, np.float32), r, ("N",) * len(r))
    assert floor.prematurity(made)[-1] == pytest.approx(-np.log(50 / 100))


def test_the_typical_beat_is_that_of_the_first_five_minutes_whatever_comes_later():
    count = int(15 * 60 / BEAT_S) - 2
    late = {n: "V" for n in range(count) if (1 + n) * BEAT_S > 301}
    assert len(late) > count / 2
    assert np.median(floor.measure(record(minutes=15, odd=late)).residual) > 0.1
