"""Which references serve: folds of patients, ways to choose, and what a map costs."""

from pathlib import Path

import numpy as np
import pytest

from ecgwatch import bundle as bundles
from ecgwatch.beats import Bedside
from tests.test_pipeline import made_record
from training.benchmark import pictures, references
from training.datasets.arrhythmia import join, record_beats
from training.datasets.dataset import Dataset, Split

PATIENTS = "abcdefgh"


@pytest.fixture(scope="module")
def data() -> tuple[Dataset, Split]:
    """Eight made patients train, one calibrates."""
    beats = join(
        [
            record_beats(made_record(name, seed, 60), Bedside(learn_s=10.0), ["N"])
            for seed, name in enumerate("abcdefghz")
        ]
    )
    normal = (beats.classes == "N") & beats.clean
    calibrates = beats.records == "z"
    parts = (normal & ~calibrates, (beats.classes == "N") & calibrates, np.zeros(len(beats), bool))
    return beats, Split("inter-patient", ("N",), *(np.flatnonzero(part) for part in parts))


def test_no_reference_is_of_the_patient_that_is_asked_about(
    data: tuple[Dataset, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    beats, split = data
    seen = []

    def spy(latents: np.ndarray, patients: np.ndarray, count: int, seed: int) -> np.ndarray:
        seen.append(set(patients.tolist()))
        return references.by_patient(latents, patients, count, seed)

    monkeypatch.setattr(references, "WAYS", {"spy": spy})
    found = references.cross_validate(bundles.load("default"), beats, split, counts=(100,), seeds=(0,))
    left_out = [set(PATIENTS) - patients for patients in seen]
    assert sorted(map(sorted, left_out)) == [["a", "e"], ["b", "f"], ["c", "g"], ["d", "h"]]
    assert [(one.way, one.count) for one in found] == [("spy", 100)]
    assert 0 <= found[0].d <= 1 and 0 <= found[0].s <= 1


def test_a_count_that_a_fold_lacks_has_no_figure(data: tuple[Dataset, Split], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "WAYS", {"at random": references.at_random})
    found = references.cross_validate(bundles.load("default"), *data, counts=(60, 100_000), seeds=(1,))
    assert [one.count for one in found] == [60]


@pytest.mark.parametrize("way", list(references.WAYS))
def test_a_way_chooses_as_many_as_are_asked_for_and_none_twice(way: str) -> None:
    rng = np.random.default_rng(0)
    latents, patients = rng.normal(size=(900, 4)).astype(np.float32), np.repeat(["a", "b", "c"], [600, 200, 100])
    chosen = references.WAYS[way](latents, patients, 240, 0)
    assert len(chosen) == len(set(chosen.tolist())) == 240


def test_the_same_number_of_each_patient_is_chosen_as_far_as_he_has_them() -> None:
    patients = np.repeat(["a", "b", "c"], [600, 200, 20])
    chosen = patients[references.by_patient(np.zeros((820, 1), np.float32), patients, 240, 0)]
    assert [(chosen == name).sum() for name in "abc"] == [110, 110, 20]


def test_costs_and_curve_make_tables_by_count_and_batch(
    data: tuple[Dataset, Split], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(references, "_REPEATS_S", 0.0)
    bundle = bundles.load("default")
    costs = references.costs(bundle, np.ascontiguousarray(data[0].x[:8]), bundle.map.latents, counts=(200, 1000))
    assert [(one.count, one.batch) for one in costs] == [
        (n, batch) for n in (200, 1000) for batch in references.BATCHES
    ]
    assert all(one.whole_us > 0 and one.bare_us > 0 for one in costs)
    choices = [
        references.Choice(way, 200, seed, 0.5, s) for way in references.WAYS for seed, s in ((0, 0.5), (1, 0.75))
    ]
    text = references.tables(choices, costs)
    assert "| 200 |" + " 0.500 ± 0.000 | 0.625 ± 0.125 |" * 3 in text
    assert references.Cost(200, 1, 200.0, 150.0).share == 0.25
    pictures.reference_curve(tmp_path / "curve.png", choices, costs)
    assert (tmp_path / "curve.png").stat().st_size > 0


def test_the_default_is_the_count_with_the_best_mean_and_of_several_the_fewest() -> None:
    s = {100: (0.80, 0.82), 500: (0.75, 0.875), 1000: (0.875, 0.75), 2000: (0.9, 0.5)}
    made = [
        references.Choice("by patient", count, seed, 0.5, value)
        for count, of_seeds in s.items()
        for seed, value in enumerate(of_seeds)
    ]
    assert references.chosen([*made, references.Choice("at random", 5000, 0, 0.5, 0.99)]) == 500
