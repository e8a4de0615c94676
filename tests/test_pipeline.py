"""From beats to a bundle, on a small scale: two made patients train, one calibrates, one is tested."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ecgwatch import bundle as bundles
from ecgwatch.beats import Bedside, Contract
from ecgwatch.bundle import Scale
from ecgwatch.errors import BundleError
from ecgwatch.records import Record
from ecgwatch.scorer import Scorer
from training import calibrate, evaluate, model_card, pipeline
from training.datasets.arrhythmia import join, record_beats
from training.datasets.dataset import Dataset, Split
from training.models import Serving
from training.parameters import Parameters
from training.score_graph import encoder_of
from training.train import fit

torch.set_num_threads(1)
FS_HZ = 360
PARAMETERS = Parameters(epochs=1, cooldown=1, batch=50, references=150, perplexity=10.0)


def made_record(name: str, seed: int, beats: int = 160) -> Record:
    """Bumps for QRS and T; every tenth beat is early, wide and inverted, and is called V."""
    rng = np.random.default_rng(seed)
    symbols = ["V" if i % 10 == 9 else "N" for i in range(beats)]
    rr_s = np.where(np.array(symbols) == "V", 0.55, 0.8) * (1 + 0.02 * rng.normal(size=beats))
    r_s = 1 + np.cumsum(rr_s)
    t = np.arange(int((r_s[-1] + 3) * FS_HZ)) / FS_HZ
    signal = 0.01 * rng.normal(size=len(t))
    for r, symbol in zip(r_s, symbols, strict=True):
        width, height = (0.05, -1.5) if symbol == "V" else (0.012, 1.0 + 0.1 * seed)
        signal += height * np.exp(-(((t - r) / width) ** 2)) + 0.25 * np.exp(-(((t - r - 0.28) / 0.05) ** 2))
    return Record(
        name, FS_HZ, "MLII", signal.astype(np.float32), np.round(r_s * FS_HZ).astype(np.int64), tuple(symbols)
    )


def made_data() -> tuple[Dataset, Split]:
    parts = [record_beats(made_record(name, seed), Contract(), ["N"]) for seed, name in enumerate("abcd")]
    beats = join(parts)
    normal = (beats.classes == "N") & beats.clean
    return beats, Split(
        "inter-patient",
        ("N",),
        np.flatnonzero(np.isin(beats.records, ["a", "b"]) & normal),
        np.flatnonzero((beats.records == "c") & (beats.classes == "N")),
        np.flatnonzero(beats.records == "d"),
    )


def made_run(beats: Dataset, split: Split, folder: Path) -> pipeline.Result:
    run = pipeline.Run(PARAMETERS, Contract(), beats, split, folder)
    return pipeline.train(run, torch.device("cpu"), lambda m: f"# {m.name}\n")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[pipeline.Result, Path]:
    folder = tmp_path_factory.mktemp("run")
    return made_run(*made_data(), folder), folder


def test_a_run_ends_with_a_bundle_that_verifies_and_scores(result: tuple[pipeline.Result, Path]) -> None:
    made, folder = result
    read = bundles.load(folder / "bundle")
    assert read.sha256 == made.bundle.sha256
    assert read.card == "# arrhythmia-inter-patient-N-seed0\n"
    assert read.manifest.training["records"] == ["a", "b"]
    assert read.manifest.training["calibration_records"] == ["c"]
    assert read.manifest.training["export_difference"] <= 1e-4
    assert read.manifest.training["map_difference"] <= 1e-4
    assert read.manifest.figures == json.loads((folder / "figures.json").read_text())


def test_a_run_that_was_killed_while_its_map_was_written_goes_on(
    result: tuple[pipeline.Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(file: Path, **arrays: np.ndarray) -> None:
        file.write_bytes(b"PK half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", killed)
        with pytest.raises(KeyboardInterrupt):
            made_run(*made_data(), tmp_path)
    assert made_run(*made_data(), tmp_path).bundle.model == result[0].bundle.model
    assert not (tmp_path / "draft").exists()


def test_the_made_ectopic_beats_score_above_the_normal_ones(result: tuple[pipeline.Result, Path]) -> None:
    """With so little training the map tells them apart; that the parts are joined rightly is what this shows."""
    predictions = result[0].predictions
    normal = predictions.classes == "N"
    assert np.median(predictions.distance[~normal]) > np.quantile(predictions.distance[normal], 0.8)


def test_nothing_of_a_test_patient_touches_model_map_scaling_or_thresholds(
    result: tuple[pipeline.Result, Path], tmp_path: Path
) -> None:
    beats, split = made_data()
    x, classes = beats.x.copy(), beats.classes.copy()
    x[split.test] = np.random.default_rng(1).random((len(split.test), x.shape[1]))
    classes[split.test] = np.where(classes[split.test] == "N", "V", "N")
    other = made_run(replace(beats, x=x, classes=classes), split, tmp_path)
    one, two = result[0].bundle, other.bundle
    assert one.model == two.model
    assert np.array_equal(one.map.positions, two.map.positions) and np.array_equal(one.map.latents, two.map.latents)
    assert (one.manifest.nse, one.manifest.distance) == (two.manifest.nse, two.manifest.distance)
    assert one.manifest.thresholds == two.manifest.thresholds
    assert one.manifest.figures != two.manifest.figures


def test_a_calibration_patient_touches_scaling_and_thresholds_alone(
    result: tuple[pipeline.Result, Path], tmp_path: Path
) -> None:
    beats, split = made_data()
    x = beats.x.copy()
    x[split.calibration] = np.clip(x[split.calibration] * 0.8, 0, 1)
    other = made_run(replace(beats, x=x), split, tmp_path)
    one, two = result[0].bundle, other.bundle
    assert encoder_of(one.model) == encoder_of(two.model)
    assert np.array_equal(one.map.latents, two.map.latents) and np.array_equal(one.map.positions, two.map.positions)
    assert one.manifest.nse != two.manifest.nse


def test_with_folds_each_patient_is_judged_by_a_model_that_the_others_alone_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beats, made = made_data()
    of_a, of_b = (made.train[beats.records[made.train] == name] for name in "ab")
    split = replace(made, calibration=made.train, folds=2 * (beats.records[made.train] == "b"))  # 1 is empty
    short = replace(PARAMETERS, cooldown=0)
    judged = pipeline.by_others(pipeline.Run(short, Contract(), beats, split, tmp_path), torch.device("cpu"))
    assert judged is not None
    nse, distance = judged
    (tmp_path / "alone").mkdir()
    model = Serving(fit(beats.x[of_b], beats.x[of_a], short, tmp_path / "alone", torch.device("cpu"))).eval()
    with torch.no_grad():
        alone = model(torch.from_numpy(beats.x[of_a]))[1].numpy()
    assert np.allclose(nse[split.folds == 0], alone, rtol=1e-4)
    assert (nse > 0).all() and (distance > 0).all()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("scaling and thresholds")]
    assert [line.split(",")[0][-11:] for line in said] == ["fold 1 of 2", "fold 2 of 2"]


def test_a_run_started_again_is_not_computed_again(result: tuple[pipeline.Result, Path]) -> None:
    made, folder = result
    written = (folder / "checkpoint.safetensors").stat().st_mtime_ns, (folder / "map.npz").stat().st_mtime_ns
    again = made_run(*made_data(), folder)
    assert again.bundle.manifest == made.bundle.manifest
    assert ((folder / "checkpoint.safetensors").stat().st_mtime_ns, (folder / "map.npz").stat().st_mtime_ns) == written


def test_thresholds_are_exceeded_at_their_rate_on_the_beats_they_come_from() -> None:
    rng = np.random.default_rng(0)
    nse, distance = rng.gamma(2, size=5000), rng.gamma(2, size=5000)
    scales = calibrate.scale(nse), calibrate.scale(distance)
    hours = 1.5
    for threshold in calibrate.thresholds(nse, distance, scales, hours):
        combined = calibrate.ALPHA * calibrate.scaled(nse, scales[0]) + (1 - calibrate.ALPHA) * calibrate.scaled(
            distance, scales[1]
        )
        assert (combined > threshold.score).sum() == round(threshold.false_alerts_per_hour * hours)


def test_a_term_that_does_not_vary_cannot_be_scaled() -> None:
    with pytest.raises(BundleError, match="no scale"):
        calibrate.scale(np.ones(100))


def test_a_term_that_is_mostly_zero_has_no_scale_of_logarithms() -> None:
    with pytest.raises(BundleError, match="too small for its logarithm"):
        calibrate.scale(np.linspace(0, 1e-7, 100), log=True)


def test_a_rate_that_the_beats_are_too_few_for_has_no_threshold() -> None:
    values = np.random.default_rng(0).random(500)
    scales = calibrate.scale(values), calibrate.scale(values)
    rates = [t.false_alerts_per_hour for t in calibrate.thresholds(values, values, scales, hours=0.1)]
    assert rates == [10.0, 30.0, 60.0, 120.0]


def test_realised_alerts_are_counted_per_hour_of_normal_rhythm() -> None:
    n = 100
    classes = np.array(["N"] * 80 + ["V"] * 20)
    score = np.r_[np.full(8, 5.0), np.zeros(72), np.full(5, 5.0), np.zeros(15)]
    predictions = evaluate.Predictions(score, score, score, classes, np.full(n, "d"), np.arange(n), classes == "N")
    figures = evaluate.realised(predictions, 10.0, 1.0, {"d": 0.5})
    assert figures["false_alerts_per_hour"] == 20.0  # 8 in 80 % of half an hour
    assert figures["sensitivity"] == {"V": 0.25}


def test_auroc_is_that_of_each_term() -> None:
    normal = np.array([True, True, False, False])
    classes = np.where(normal, "N", "V")
    predictions = evaluate.Predictions(
        np.array([1.0, 2, 3, 4]),
        np.array([4.0, 3, 2, 1]),
        np.array([1.0, 3, 2, 4]),
        classes,
        classes,
        np.arange(4),
        normal,
    )
    assert evaluate.auroc(predictions) == {"nse": 1.0, "distance": 0.0, "score": 0.75, "normal": 2, "abnormal": 2}


def test_a_bedside_model_goes_from_records_to_a_bundle_that_scores(tmp_path: Path) -> None:
    contract = Bedside(learn_s=10.0)
    beats = join([record_beats(made_record(name, seed), contract, ["N"]) for seed, name in enumerate("abcd")])
    normal = (beats.classes == "N") & beats.clean
    masks = (np.isin(beats.records, ["a", "b"]) & normal, (beats.records == "c") & normal, beats.records == "d")
    split = Split("inter-patient", ("N",), *(np.flatnonzero(mask) for mask in masks))
    made = replace(PARAMETERS, contract="bedside", latent=3, capacity=3.0, epochs=4)
    run = pipeline.Run(made, contract, beats, split, tmp_path)
    found = pipeline.train(run, torch.device("cpu"), model_card.render)
    assert found.bundle.manifest.contract == contract
    assert "typical beat" in found.bundle.card
    terms = Scorer(found.bundle, "cpu").score(beats.x[split.test])
    abnormal = beats.classes[split.test] != "N"
    for one in terms:  # inverted, wide and early: whatever was learned, they stand out
        assert roc_auc_score(abnormal, one) > 0.9


def test_a_scale_is_made_of_the_median_the_upper_quartile_and_what_99_of_100_do_not_exceed() -> None:
    assert calibrate.scale(np.arange(101.0), log=True, most=5.0) == Scale(50.0, 75.0, 99.0, log=True, most=5.0)
