"""Cross-validation over patients."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecgwatch.beats import Bedside
from ecgwatch.errors import ConfigError
from training.benchmark import folds
from training.datasets.dataset import Dataset
from training.parameters import CLASSES

SAMPLES = Bedside().samples


def patients(count: int, abnormal_by: float) -> Dataset:
    """As many patients of 60 normal and 10 ventricular beats, which deviate by so much from the typical one."""
    each, rows = 70, []
    for _ in range(count * each):
        rows.append(np.concatenate([np.sin(np.arange(SAMPLES) / 9)] * 2 + [np.zeros(2)]))
    x = np.array(rows, np.float32)
    rng = np.random.default_rng([count, round(10 * abnormal_by)])
    x[:, :SAMPLES] += 0.05 * rng.normal(size=(len(x), SAMPLES))
    classes = np.array((["N"] * 60 + ["V"] * 10) * count)
    x[classes == "V", 20:40] += abnormal_by
    names = np.repeat([f"p{number}" for number in range(count)], each)
    kinds = CLASSES["arrhythmia"]
    return Dataset(
        x,
        classes,
        names,
        np.arange(len(x)),
        np.ones(len(x), bool),
        dict.fromkeys(np.unique(names).tolist(), 0.5),
        kinds,
    )


SMALL = replace(
    folds.candidate(["filters=4", "references=40", "peers=5", "perplexity=5", "epochs=3", "cooldown=1"]), batch=20
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The file, and its row, of patients whose ventricular beats deviate."""
    file = tmp_path_factory.mktemp("folds") / "folds.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folds.arrhythmia, "load", lambda *_: patients(4, 1.0))
        patch.setattr(folds, "FOLDS", 2)  # an export each; two patients are strangers to the other two
        folds.run(SMALL, file.parent, file, 1)
    (row,) = csv.DictReader(file.read_text().splitlines())
    return file, row


def test_patients_never_seen_are_told_apart_where_they_differ_and_only_there(
    told: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch
):
    row = told[1]
    assert min(float(row[name]) for name in ("s", "s_of_v", "median", "lowest", "energy")) > 0.95
    assert float(row["at_most"]) == 4 and 0 < float(row["false_alerts"]) <= 30
    monkeypatch.setattr(folds, "FOLDS", 2)
    same = folds.cross_validate(SMALL, patients(4, 0.0))
    assert 0.3 < same.s < 0.7 and 0.3 < same.energy < 0.7


def test_a_class_that_no_beat_has_is_an_empty_cell(told: tuple[Path, dict[str, str]]):
    assert told[1]["s_of_f"] == "nan"


def test_a_row_is_appended_once(told: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str]):
    file, row = told
    before = file.read_text()
    folds.run(SMALL, file.parent, file, 1)
    assert row["filters"] == "4" and file.read_text() == before
    assert f"{file} holds it" in capsys.readouterr().out


def test_a_candidate_is_the_default_with_what_is_set():
    found = folds.candidate(["filters=32", "denoise=0", "seed=3"])
    assert (found.filters, found.denoise, found.seed) == (32, 0.0, 3)
    assert folds.key(found) != folds.key(folds.candidate([]))


@pytest.mark.parametrize(
    "wrong", ["colour=1", "filters=many", "filters", "epochs=0", "latent=-2", "beta=nan", "capacity=inf", "seed=-1"]
)
def test_what_cannot_be_tried_is_refused_by_name(wrong: str):
    with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
        folds.candidate([wrong])


def test_what_trains_is_normal_and_clean_and_of_other_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[np.ndarray] = []
    monkeypatch.setattr(
        folds, "train_and_score", lambda parameters, beats, *rows: given.extend(rows[:3]) or np.zeros((3, len(rows[2])))
    )
    beats = patients(4, 1.0)
    beats = replace(beats, clean=np.arange(len(beats)) % 3 > 0)
    held_out = np.isin(beats.records, np.unique(beats.records)[::2])
    folds._fold(SMALL, beats, held_out)
    train, scales, tested = given
    assert set(beats.classes[train]) == set(beats.classes[scales]) == {"N"} and beats.clean[train].all()
    assert not held_out[train].any() and held_out[scales].all()
    assert tested.tolist() == np.flatnonzero(held_out).tolist() and set(beats.classes[tested]) > {"N"}
