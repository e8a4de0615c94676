"""Who trains, who sets the scale, who is tested; which windows are left out."""

from dataclasses import replace

import numpy as np
import pytest

from ecgwatch.beats import Bedside, Contract
from ecgwatch.errors import DataError
from ecgwatch.records import Record
from training.datasets import arrhythmia
from training.datasets.arrhythmia import CALIBRATION, DS1, DS2, KINDS, PACED, RECORDS, record_beats, split
from training.datasets.dataset import Dataset, Split

EACH = 40  # beats of every record


@pytest.fixture
def beats() -> Dataset:
    """Beats of all 48 records: of each ten, one V, one S, and one N whose window holds the V."""
    n = EACH * len(RECORDS)
    kinds = np.tile(np.array(list("NNNNNNNNVS")), n // 10)
    return Dataset(
        x=np.arange(n, dtype=np.float32)[:, None],
        classes=kinds,
        records=np.repeat(np.array(RECORDS), EACH),
        samples=np.tile(np.arange(EACH), len(RECORDS)),
        clean=(kinds == "N") & (np.arange(n) % 10 != 7),
        hours=dict.fromkeys(RECORDS, 0.5),
        kinds=KINDS,
    )


def records_of(beats: Dataset, rows: np.ndarray) -> set[str]:
    return set(beats.records[rows].tolist())


def disjoint(made: Split) -> bool:
    parts = [set(rows.tolist()) for rows in (made.train, made.calibration, made.test)]
    return sum(map(len, parts)) == len(set.union(*parts))


class TestRecords:
    def test_the_48_records_are_ds1_ds2_and_the_paced_ones(self):
        assert len(DS1) == len(DS2) == 22 and len(PACED) == 4
        assert len(set(DS1 + DS2 + PACED)) == len(RECORDS) == 48

    def test_ds2_is_de_chazals(self):
        said = "100 103 105 111 113 117 121 123 200 202 210 212 213 214 219 221 222 228 231 232 233 234"
        assert " ".join(DS2) == said


class TestBetweenPatients:
    def test_no_record_is_in_two_parts(self, beats):
        made = split(beats, "inter-patient", ["N"])
        train, calibration, test = (records_of(beats, rows) for rows in (made.train, made.calibration, made.test))
        assert not train & calibration and not train & test and not calibration & test

    def test_all_of_ds2_is_tested_and_nothing_else(self, beats):
        made = split(beats, "inter-patient", ["N"])
        assert records_of(beats, made.test) == set(DS2)
        assert len(made.test) == EACH * len(DS2)

    def test_the_person_of_201_who_is_also_202_is_tested_alone(self, beats):
        made = split(beats, "inter-patient", ["N"])
        assert not records_of(beats, np.r_[made.train, made.calibration]) & {"201", "202"}
        assert "202" in records_of(beats, made.test)

    def test_paced_records_are_in_no_part(self, beats):
        made = split(beats, "inter-patient", ["N", "Q"])
        assert not records_of(beats, np.r_[made.train, made.calibration, made.test]) & set(PACED)

    def test_calibration_has_patients_of_its_own(self, beats):
        made = split(beats, "inter-patient", ["N"])
        assert records_of(beats, made.calibration) == set(CALIBRATION)
        assert records_of(beats, made.train) == set(DS1) - set(CALIBRATION) - {"201"}
        assert made.folds is None

    def test_with_folds_every_patient_of_ds1_trains_and_calibrates_each_in_one_fold(self, beats: Dataset) -> None:
        made = split(beats, "inter-patient", ["N"], folds=4)
        assert records_of(beats, made.train) == records_of(beats, made.calibration) == set(DS1) - {"201"}
        assert records_of(beats, made.test) == set(DS2)
        assert made.folds is not None
        of_record = set(zip(beats.records[made.calibration].tolist(), made.folds.tolist(), strict=True))
        assert len(of_record) == 21 and {fold for _, fold in of_record} == {0, 1, 2, 3}

    def test_what_the_test_patients_are_like_changes_no_other_part(self, beats):
        kinds = np.where(np.isin(beats.records, DS2), "V", beats.classes)
        clean = beats.clean & ~np.isin(beats.records, DS2)
        one, other = (split(b, "inter-patient", ["N"]) for b in (beats, replace(beats, classes=kinds, clean=clean)))
        assert one.train.tolist() == other.train.tolist()
        assert one.calibration.tolist() == other.calibration.tolist()


class TestByBeat:
    def test_a_fifth_of_each_class_is_tested(self, beats):
        made = split(beats, "by-beat", ["N"])
        for kind in "NSV":
            share = (beats.classes[made.test] == kind).sum() / (beats.classes == kind).sum()
            assert share == pytest.approx(0.2, abs=0.003)

    def test_no_beat_is_in_two_parts(self, beats):
        assert disjoint(split(beats, "by-beat", ["N"]))
        assert disjoint(split(beats, "by-beat", ["N", "S"], keep_mixed_windows=True))

    def test_about_a_tenth_of_the_training_part_calibrates(self, beats):
        made = split(beats, "by-beat", ["N"], keep_mixed_windows=True)
        assert 0.05 < len(made.calibration) / (len(made.calibration) + len(made.train)) < 0.15

    def test_the_seed_decides_the_draw(self, beats):
        drawn = [split(beats, "by-beat", ["N"], seed=seed).test.tolist() for seed in (0, 0, 1)]
        assert drawn[0] == drawn[1] != drawn[2]


class TestByTime:
    def test_the_end_of_each_record_is_tested_and_no_training_window_reaches_it(self, beats):
        beats = replace(beats, samples=beats.samples * 360)  # one each second
        made = split(beats, "by-time", ["N", "S", "V"], keep_mixed_windows=True)
        assert disjoint(made) and records_of(beats, made.test) == records_of(beats, made.train) == set(RECORDS)
        assert (beats.samples[made.test] >= 0.8 * 39 * 360).all()
        assert len(made.test) == 8 * len(RECORDS)  # of 40
        assert beats.samples[made.train].max() == 29 * 360  # 31.2 s begins the test; a window is up to 2 s long


@pytest.mark.parametrize("name", ["inter-patient", "by-beat"])
class TestNormal:
    @pytest.mark.parametrize("normal", [["N"], ["N", "S"], ["V"]], ids="".join)
    def test_only_normal_beats_train_and_calibrate(self, beats, name, normal):
        made = split(beats, name, normal, keep_mixed_windows=True)
        for rows in (made.train, made.calibration):
            assert set(beats.classes[rows].tolist()) == set(normal)
        assert set(beats.classes[made.test].tolist()) == {"N", "S", "V"}

    def test_normal_beats_whose_window_holds_an_abnormal_one_do_not_train(self, beats, name):
        made = split(beats, name, ["N"])
        assert beats.clean[made.train].all()
        assert not beats.clean[made.calibration].all()  # a ward has them: they do calibrate, and are tested
        assert (~beats.clean & (beats.classes == "N"))[made.test].any()

    def test_an_option_restores_them_and_nothing_else(self, beats, name):
        strict, kept = (split(beats, name, ["N"], keep_mixed_windows=keep) for keep in (False, True))
        added = np.setdiff1d(kept.train, strict.train)
        assert len(added) and not beats.clean[added].any()
        assert len(np.setdiff1d(strict.train, kept.train)) == 0
        assert strict.test.tolist() == kept.test.tolist()
        assert strict.calibration.tolist() == kept.calibration.tolist()

    @pytest.mark.parametrize(("normal", "said"), [(["X"], "got X"), ([], "got none")])
    def test_an_unknown_class_is_refused_with_those_there_are(self, beats, name, normal, said):
        with pytest.raises(DataError, match=f"some of N, S, V, F, Q; {said}"):
            split(beats, name, normal)


FS_HZ = 360


def rhythm(r_s: list[float], symbols: str) -> Record:
    """A record with a bump at each R."""
    t = np.arange(int((r_s[-1] + 3) * FS_HZ)) / FS_HZ
    signal = sum(np.exp(-(((t - r) / 0.02) ** 2)) for r in r_s)
    return Record(
        "100", FS_HZ, "MLII", signal.astype(np.float32), np.round(np.array(r_s) * FS_HZ).astype(int), tuple(symbols)
    )


class TestWindows:
    def test_a_window_that_holds_an_abnormal_r_peak_is_not_clean(self):
        made = record_beats(rhythm([1, 2, 3, 4, 5, 6, 7], "NNNNVNN"), Contract(), ["N"])
        # the first beat has no interval before it, and is not there; 4 s sees V at 5 s, V itself is abnormal
        assert made.samples.tolist() == [FS_HZ * s for s in (2, 3, 4, 5, 6, 7)]
        assert made.clean.tolist() == [True, True, False, False, True, True]

    def test_an_abnormal_r_peak_just_beyond_the_window_leaves_it_clean(self):
        made = record_beats(rhythm([1, 2, 3, 4.19, 5.4, 6.6], "NNNVNN"), Contract(), ["N"])
        seen = record_beats(rhythm([1, 2, 3, 4.21, 5.4, 6.6], "NNNVNN"), Contract(), ["N"])
        assert (made.clean[1], seen.clean[1]) == (False, True)  # the window of 3 s ends at 4.2 s

    def test_what_is_abnormal_follows_from_the_classes_named_normal(self):
        made = record_beats(rhythm([1, 2, 3, 4, 5, 6, 7], "NNNNVNN"), Contract(), ["N", "V"])
        assert made.clean.all()

    def test_the_centred_median_looks_ahead_and_the_other_does_not(self):
        r_s = [1.0, 2.0, 3.0, 4.0, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0]
        past, centred = (
            record_beats(rhythm(r_s, "N" * 13), Contract(rr_window=window), ["N"]) for window in ("past", "centred")
        )
        at = 5 * FS_HZ
        lengths = [np.flatnonzero(b.x[b.samples == at][0])[-1] + 1 for b in (past, centred)]
        assert lengths[0] == 150 and lengths[1] < 80  # 1.2 x 1 s, 1.2 x 0.5 s

    def test_a_records_time_is_kept(self):
        made = record_beats(rhythm([1, 2, 3], "NNN"), Contract(), ["N"])
        assert made.hours == {"100": 6 / 3600}


@pytest.mark.data
def test_a_rebuild_of_the_published_classes_agrees_with_the_published_counts(mitdb):
    beats = arrhythmia.load(mitdb, Contract(rr_window="centred", leads=()), ["N"])
    counts = {kind: int((beats.classes == kind).sum()) for kind in "NSVFQ"}
    published = {"N": 90589, "S": 2779, "V": 7236, "F": 803, "Q": 8039}
    assert all(abs(counts[kind] - n) <= 30 for kind, n in published.items()), counts
    assert beats.x.min() == 0 and beats.x.max() == 1


@pytest.mark.data
def test_the_person_of_two_real_records_is_tested_and_trains_nothing(mitdb):
    names = ("201", "202", "213")
    beats = arrhythmia.load(mitdb, Contract(), ["N"], names)
    made = split(beats, "inter-patient", ["N"])
    assert records_of(beats, made.test) == {"202", "213"} and not len(made.train)
    assert (beats.classes[beats.records == "213"] == "F").sum() == 362


def test_of_a_bedside_model_only_beats_and_hours_after_the_typical_beat_is_learned_count():
    r_s = [1 + 0.8 * n for n in range(80)]
    made = record_beats(rhythm(r_s, "N" * 80), Bedside(learn_s=20), ["N"])
    assert made.samples.tolist() == [round(r * FS_HZ) for r in r_s if r >= 21]
    assert made.hours == {"100": pytest.approx((r_s[-1] + 3 - 21) / 3600, abs=1e-5)}


def test_a_record_of_which_no_typical_beat_is_learned_has_no_beats_and_no_hours():
    made = record_beats(rhythm([1 + 0.8 * n for n in range(20)], "N" * 20), Bedside(learn_s=20), ["N"])
    assert (len(made.x), made.hours) == (0, {"100": 0})


def test_a_bedside_window_that_holds_an_abnormal_r_peak_is_not_clean():
    r_s = [1 + 0.8 * n for n in range(80)]
    r_s[50], r_s[60] = r_s[49] + 0.48, r_s[59] + 0.5  # a window with its room to be moved ends 0.488 s after R
    made = record_beats(
        rhythm(r_s, "".join("V" if n in (50, 60) else "N" for n in range(80))), Bedside(learn_s=20), ["N"]
    )
    at = [round(r_s[n] * FS_HZ) for n in (49, 50, 60)]
    assert made.samples[~made.clean].tolist() == at


def test_every_fourth_record_of_ds1_without_201_is_held_out():
    assert CALIBRATION == ("101", "112", "118", "203", "209", "230")
