"""Figures on patients never seen: the table, the intervals over patients, and what a disturbed record is."""

import csv
import io

import numpy as np
import pytest

from ecgwatch.beats import Bedside
from ecgwatch.records import Record
from tests.test_pipeline import made_record
from training.benchmark import pictures, robustness, strangers
from training.benchmark.strangers import Beats
from training.datasets.arrhythmia import record_beats

RNG = np.random.default_rng(0)


def beats(of: dict[str, str]) -> Beats:
    """Beats by record, a letter each."""
    classes = np.array(list("".join(of.values())), "<U1")
    records = np.repeat(list(of), [len(letters) for letters in of.values()])
    return Beats(classes, records, np.arange(len(classes)))


FOUR = beats({"100": "NNNV", "200": "NNSN", "213": "FNNN", "232": "SSNN"})
PERFECT = (FOUR.classes != "N").astype(float)


def cells(score: np.ndarray) -> dict[str, strangers.Cell]:
    return {cell.column: cell for cell in strangers.table(FOUR, {"S": [score]})}


def test_a_perfect_score_is_1_in_every_column_and_interval():
    found = cells(PERFECT)
    assert list(found) == list(strangers.COLUMNS)
    assert {(one.auroc, one.lower, one.upper) for one in found.values()} == {(1.0, 1.0, 1.0)}


def test_record_232_counts_in_the_first_column_alone():
    wrong_there = np.where(FOUR.records == "232", 1 - PERFECT, PERFECT)
    found = cells(wrong_there)
    assert found["all"].auroc < 1
    assert [found[name].auroc for name in ("without 232", "S", "V", "F")] == [1, 1, 1, 1]
    assert strangers.of_records(FOUR, wrong_there) == {"100": 1, "200": 1, "213": 1, "232": 0}
    assert found["median over records"].auroc == 1


def test_a_class_is_compared_with_normal_beats_only():
    v_highest = PERFECT + (FOUR.classes == "V")
    s_below_normal = np.where(FOUR.classes == "S", -1.0, v_highest)
    found = cells(s_below_normal)
    assert (found["V"].auroc, found["F"].auroc, found["S"].auroc) == (1, 1, 0)


def test_of_several_seeds_the_mean_and_the_extremes_are_given():
    half = np.where(FOUR.classes == "V", 0.0, PERFECT)
    (cell,) = [one for one in strangers.table(FOUR, {"S": [PERFECT, half]}) if one.column == "V"]
    assert (cell.seeds, cell.auroc, cell.lowest, cell.highest) == (2, 0.75, 0.5, 1.0)
    assert "(mean of 2)" in strangers.markdown(strangers.table(FOUR, {"S": [PERFECT, half]}))


def test_the_interval_is_over_patients_not_beats():
    """Two patients, one judged perfectly, one not at all: some draws hold one of them only."""
    two = beats({"100": "NNNNVVSF" * 50, "200": "NNNNVVSF" * 50})
    score = (two.classes != "N") * np.where(two.records == "100", 2.0, -2.0)
    (cell, *_) = strangers.table(two, {"S": [score]})
    assert (cell.auroc, cell.lower, cell.upper) == (0.5, 0.0, 1.0)


def record() -> Record:
    return made_record("a", 1, 120)


def test_an_undisturbed_record_stays_as_it_is():
    found = robustness.disturbed(record(), np.random.default_rng(0), 0.0, np.zeros(0), 0.0)
    assert np.array_equal(found.signal, record().signal)
    assert np.array_equal(found.r_samples, record().r_samples)


def test_r_peaks_move_by_up_to_the_jitter_and_keep_their_symbols():
    found = robustness.disturbed(record(), np.random.default_rng(0), 0.04, np.zeros(0), 0.0)
    moved_s = (found.r_samples - record().r_samples) / record().fs_hz
    assert 0.03 < np.abs(moved_s).max() <= 0.04 + 1 / record().fs_hz
    assert found.symbols == record().symbols
    assert (np.diff(found.r_samples) >= 0).all()


@pytest.mark.parametrize("snr_db", [24, 12, 6])
def test_the_noise_has_the_power_that_the_ratio_names(snr_db: float):
    noise = RNG.normal(size=10_000).cumsum()
    before = record()
    found = robustness.disturbed(before, np.random.default_rng(0), 0.0, noise, snr_db)
    r, width = before.r_samples, round(0.05 * before.fs_hz)
    heights = [np.ptp(before.signal[max(0, at - width) : at + width]) for at in r.tolist()]
    signal_power = np.median(heights) ** 2 / 8  # of a sine as high as the QRS complexes
    noise_power = (found.signal.astype(float) - before.signal).var()
    assert 10 * np.log10(signal_power / noise_power) == pytest.approx(snr_db, abs=0.3)


def test_the_input_s_own_numbers_rise_with_deviation_and_prematurity():
    data = record_beats(record(), Bedside(learn_s=10.0), ["N"])
    x = np.repeat(data.x[:1], 4, axis=0)
    samples = Bedside().samples
    x[1, :samples] += 0.5
    x[2, -2] -= 3
    x[3, :samples] += 0.5
    x[3, -2] -= 3
    plain, deviates, early, both = strangers._two_numbers(x, data.x)
    assert plain < min(deviates, early) <= max(deviates, early) < both


def test_tables_are_written_as_csv(tmp_path):
    strangers.write_csv(tmp_path / "made" / "t.csv", [{"a": 1, "b": "x"}, {"a": 2, "b": ""}])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "made" / "t.csv").read_text())))
    assert rows == [{"a": "1", "b": "x"}, {"a": "2", "b": ""}]


def test_beats_before_the_typical_beat_is_learned_are_no_part_of_the_data():
    whole = record_beats(record(), Bedside(learn_s=10.0), ["N"])
    longer = record_beats(record(), Bedside(learn_s=60.0), ["N"])
    never = record_beats(record(), Bedside(learn_s=300.0), ["N"])
    assert whole.samples.min() / 360 >= 10 and longer.samples.min() / 360 >= 60
    assert len(never) == 0 and never.hours == {"a": 0.0}
    assert whole.hours["a"] == pytest.approx((len(record().signal) - whole.samples.min()) / 360 / 3600)


def test_of_the_beats_found_and_missed_the_one_with_the_median_score_is_shown():
    many = beats({"200": "NVVVVVV", "100": "NNNNNNV"})
    x = np.arange(14 * 10, dtype=np.float32).reshape(14, 10)  # four samples, their typical beat, RR, pauses
    score = np.arange(14.0)
    shown = strangers.examples(many, x, score, threshold=3.5)
    assert list(shown) == ["200", "100"]
    typical, missed, found = (
        shown["200"]["typical beat"],
        *(
            next(beat for label, beat in shown["200"].items() if what in label)
            for what in ("missed (3 of 6)", "found (3 of 6)")
        ),
    )
    np.testing.assert_array_equal(found, x[5, :4])
    np.testing.assert_array_equal(missed, x[2, :4])
    np.testing.assert_array_equal(typical, x[5, 4:8])
    assert not any("missed" in label for label in shown["100"])


def test_the_pictures_are_drawn(tmp_path):
    curves = strangers.curves(FOUR, {"S": [PERFECT], "floor": [1 - PERFECT]}, ("S", "floor"))
    assert list(curves) == ["S", "V", "F"]
    pictures.rocs(tmp_path / "roc.png", curves)
    pictures.examples(tmp_path / "examples.png", {"100": {"typical beat": np.zeros(94)}}, 125.0, 0.3)
    assert (tmp_path / "roc.png").stat().st_size > 5000 and (tmp_path / "examples.png").stat().st_size > 3000


def test_one_scale_counts_records_near_the_target_and_what_chance_allows() -> None:
    """At 2 an hour, half an hour each: one alert is expected, and 2/3 to 6 an hour are one to three alerts."""
    rates = {"100": 2.0, "103": 6.0, "105": 8.0, "111": 0.0}
    alerts = [{"target_per_hour": 2.0, "false_alerts_per_hour": 4.0, "false_alerts_per_hour_by_record": rates}]
    row = strangers.one_scale(alerts, dict.fromkeys(rates, 0.5)).splitlines()[2]
    expected = 4 * np.exp(-1) * (1 + 1 / 2 + 1 / 6)
    assert row == f"| 2 | 4.0 | 4.0 | 2 of 4 | 3 of 4 | {expected:.1f} |"
