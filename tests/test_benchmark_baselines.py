"""The baselines: each tells what is plainly different apart and nothing else, and what is done is not done again."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ecgwatch import cli
from ecgwatch.errors import ConfigError
from training.benchmark import published
from training.benchmark.auroc import auroc
from training.benchmark.baselines import experiment, page, saved_run
from training.benchmark.baselines.methods import METHODS
from training.benchmark.baselines.points import Encoded, Points, converged
from training.benchmark.placement import choose_test
from training.benchmark.rows import read_csv, write_csv
from training.datasets.dataset import Dataset
from training.models import segment_model
from training.parameters import CLASSES, Parameters

torch.set_num_threads(1)
LENGTH = 33
TEST = 200  # normal points, then as many of the same kind called abnormal, then as many that are abnormal
EPOCHS = {"f-AnoGAN": 80, "LSTM-VAE": 30}  # of three batches each
RUNS = {name for name, method in METHODS.items() if method.from_run}


def _waves(count: int, seed: int, sign: int = 1) -> np.ndarray:
    """Waves in [0, 1] of slightly different height, float32[count, LENGTH]; sign -1: upside down."""
    rng = np.random.default_rng(seed)
    height = rng.uniform(0.7, 1, (count, 1))
    waves = 0.5 + sign * 0.5 * height * np.sin(np.linspace(0, 3, LENGTH)) + 0.02 * rng.normal(size=(count, LENGTH))
    return waves.clip(0, 1).astype(np.float32)


def _latents(count: int, seed: int, shift: float = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, 4)) + shift).astype(np.float32)


@pytest.fixture(scope="module")
def points() -> Points:
    rng = np.random.default_rng(3)
    latents = [_latents(300, 1), _latents(100, 2), np.concatenate([_latents(2 * TEST, 3), _latents(TEST, 4, 8)])]
    nse = [rng.random(100) + 1, rng.random(3 * TEST) + 1 + np.repeat([0, 0, 2], TEST)]
    test = np.concatenate([_waves(2 * TEST, 3), _waves(TEST, 4, -1)])
    encoded = Encoded(*latents, latents[0], *nse, perplexity=15.0, losses=[1.0] * 20)
    return Points(_waves(300, 1), _waves(100, 2), test, seed=0, epochs=12, encoded=encoded)


# UMAP takes half a minute to compile: tests/test_benchmark_cli.py runs map_ways.umap, which is all that these add
@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith("UMAP")])
def test_a_method_tells_the_upside_down_apart_and_not_more_of_the_same(points: Points, name: str) -> None:
    method = METHODS[name]
    points = replace(points, epochs=EPOCHS.get(name, points.epochs))
    found = method.score(points, method.settings[-1])
    normal, same, odd = found.scores.reshape(3, TEST)
    abnormal = np.repeat([False, True], TEST)
    assert auroc(np.concatenate([normal, odd]), abnormal)[0] > 0.95
    assert auroc(np.concatenate([normal, same]), abnormal)[0] == pytest.approx(0.5, abs=0.1)
    assert found.scores.dtype == np.float64 and 0 < found.train_points <= 300
    lengths = {len(curve) for curve in found.curves.values()}
    assert lengths <= ({20} if name in RUNS else {points.epochs})


def test_gan_ad_tells_apart_what_it_has_learned_and_alike_in_any_company(points: Points) -> None:
    few = replace(points, test=points.test[:: TEST // 4])
    first = METHODS["GAN-AD"].score(few, 1e-3).scores
    alone = METHODS["GAN-AD"].score(replace(few, test=few.test[-2:]), 1e-3).scores
    untrained = METHODS["GAN-AD"].score(replace(few, epochs=0), 1e-3).scores
    abnormal = np.repeat([False, False, True], 4)
    assert auroc(first, abnormal)[0] == 1 and auroc(untrained, abnormal)[0] < 0.5
    np.testing.assert_allclose(alone, first[-2:], rtol=1e-4)


def test_a_curve_has_converged_where_the_halves_of_its_last_half_are_alike() -> None:
    flat = [5.0, 3, 2, 1.5, 1.2, 1.1, 1.01, 1.005, 1.0, 1.0]
    assert converged(flat)
    assert not converged(flat[:9])  # too few epochs
    assert not converged(np.linspace(2, 1, 20).tolist())
    assert not converged((0.985 ** np.arange(24)).tolist())  # 1.5 % an epoch, to the end
    assert not converged([*flat[:-1], float("nan")])
    assert converged([*flat, 0.5, 0.5], cooldown=2) and not converged([*flat, 0.5, 0.5])


@pytest.fixture(scope="module")
def beats() -> Dataset:
    kinds = np.repeat(list(CLASSES["arrhythmia"]), 120)
    signs = {"N": 1, "S": 1, "V": -1, "F": 1, "Q": 1}
    x = np.concatenate([_waves(120, number, sign) for number, sign in enumerate(signs.values())])
    count = len(x)
    records = np.full(count, "100")
    return Dataset(x, kinds, records, np.arange(count), np.ones(count, bool), {"100": 0.5}, CLASSES["arrhythmia"])


def _write_run(folder: Path, source: experiment.Source, anomaly: str) -> None:
    """Write what `ecgwatch benchmark placement` leaves, of a model that has learned nothing, latents in other units."""
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    model = segment_model(LENGTH, 3).eval()
    parameters = replace(Parameters(), latent=3, epochs=1, cooldown=1, unit_latents=True)
    (folder / "parameters.json").write_text(json.dumps({"parameters": asdict(parameters)}))
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "checkpoint.safetensors", {"losses": json.dumps([{"watched_nse": 1.0}] * 2)})
    split, x = source.split(anomaly), source.beats.x
    abnormal = source.beats.classes[split.test] == anomaly
    parts = {"train": split.train, "held_out": split.calibration, "test": split.test[choose_test(abnormal, 0)]}
    arrays = {"references": np.arange(0, len(split.train), 2)}
    for name, rows in parts.items():
        latents, arrays[f"{name}_nse"] = saved_run.encode(model, x[rows])
        arrays[f"{name}_latents"] = latents * np.array([1, 10, 100], np.float32)
    np.savez(folder / "points.npz", **arrays)


def _run(source: experiment.Source, out: Path, names: Sequence[str], anomalies: str) -> list[experiment.Row]:
    return experiment.run(source, out, names, list(anomalies), [0], minutes=10)


def test_a_run_that_was_stopped_ends_with_the_rows_of_one_that_was_not(beats: Dataset, tmp_path: Path) -> None:
    source = experiment.Source(beats, tmp_path / "runs", epochs=2)
    for anomaly in "VF":
        _write_run(source.run_folder(anomaly, 0), source, anomaly)
    names = ["latent nearest neighbours", "isolation forest, raw beats", "Deep SVDD"]
    whole = _run(source, tmp_path / "whole", names, "VF")
    assert [row.anomaly for row in whole] == list("VF") * 3 and all(row.auroc is not None for row in whole)
    assert next(row.auroc for row in whole if row.method == names[1]) > 0.95  # V is upside down
    parts = tmp_path / "parts"
    _run(source, parts, names[2:], "F")
    _run(source, parts, names[:2], "V")
    first = (parts / "baselines.csv").read_text().splitlines()
    stopped = _run(source, parts, names, "VF")
    assert [replace(row, seconds=None) for row in stopped] == [replace(row, seconds=None) for row in whole]
    assert set(first) <= set((parts / "baselines.csv").read_text().splitlines())  # with their seconds: not done again
    curves = [read_csv(one / "baselines-curves.csv", experiment.Loss) for one in (parts, tmp_path / "whole")]
    assert len(curves[0]) == 4 and sorted(curves[0], key=str) == sorted(curves[1], key=str)
    tried = read_csv(parts / "baselines-tuning.csv", experiment.Tuning)
    assert len(tried) == 9 and len({(one.method, one.setting) for one in tried}) == 9


def test_a_row_without_its_run_is_missing_until_the_run_is_there(beats: Dataset, tmp_path: Path) -> None:
    source = experiment.Source(beats, tmp_path / "runs", epochs=2)
    (row,) = _run(source, tmp_path, ["reconstruction only"], "S")
    assert row.auroc is None and row.note == "missing: no trained run by-beat-anomaly-S-0"
    _write_run(source.run_folder("S", 0), source, "S")
    (row,) = _run(source, tmp_path, ["reconstruction only"], "S")
    assert row.auroc is not None and row.test_points == 5 * 24
    assert experiment.run(source, tmp_path / "none", ["reconstruction only"], ["S"], [0], minutes=-1) == []


def test_a_row_trained_on_fewer_points_is_trained_again_on_all(beats: Dataset, tmp_path: Path) -> None:
    short, whole = (experiment.Source(beats, tmp_path, epochs=1, most=most) for most in (100, None))
    (row,) = _run(short, tmp_path, ["DBN + OCSVM"], "V")
    assert row.train_points == 100 and "shortened: 100 drawn of 3" in str(row.note)
    assert "\xb0 |" in page.table([row])
    assert _run(short, tmp_path, ["DBN + OCSVM"], "V") == [row]
    (again,) = _run(whole, tmp_path, ["DBN + OCSVM"], "V")
    assert (again.train_points or 0) > 300 and _run(short, tmp_path, ["DBN + OCSVM"], "V") == [again]


def test_points_of_another_model_are_refused_and_their_unit_is_found(beats: Dataset, tmp_path: Path) -> None:
    source = experiment.Source(beats, tmp_path, epochs=2)
    folder = source.run_folder("V", 0)
    _write_run(folder, source, "V")
    np.testing.assert_allclose(source.run("V", 0).unit, [1, 10, 100], rtol=1e-4)
    with np.load(folder / "points.npz") as saved:
        arrays = dict(saved)
    arrays["test_latents"] = arrays["test_latents"][::-1]
    np.savez(folder / "points.npz", **arrays)
    with pytest.raises(ConfigError, match="not of this checkpoint"):
        experiment.Source(beats, tmp_path, epochs=2).run("V", 0)
    np.savez(folder / "points.npz", **arrays | {"test_latents": arrays["test_latents"][:7]})
    with pytest.raises(ConfigError, match="not of this checkpoint"):
        experiment.Source(beats, tmp_path, epochs=2).run("V", 0)


def test_the_papers_figures_have_the_means_that_it_prints() -> None:
    rows = published.read()
    assert len(rows) == 266
    groups = {(row["table"], row["dataset"], row["method"]) for row in rows}
    for group in groups:
        of_group = {r["anomaly"]: r["auroc"] for r in rows if (r["table"], r["dataset"], r["method"]) == group}
        mean = of_group.pop("mean")
        assert len(of_group) == (5 if group[1] in ("arrhythmia", "small-norb") else 10)
        assert np.mean(list(of_group.values())) == pytest.approx(mean, abs=0.00051), group
    assert {row["method"] for row in rows if row["protocol"] == "one class normal"} == {"AnoGAN", "ADGAN"}


def test_the_page_marks_what_is_unverified_and_never_ranks_another_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        experiment.Row("arrhythmia", "by-beat", one, "Deep SVDD", 0, 0.75, 9, 9, 1.0, "unverified") for one in "NSVFQ"
    ]
    rows += [experiment.Row("arrhythmia", "by-beat", one, "LSTM-VAE", 0, 0.875, 9, 9, 1.0, "yes") for one in "NSVFQ"]
    rows += [experiment.Row("arrhythmia", "by-beat", "N", "f-AnoGAN", 0, 0.9375, 9, 9, 1.0, "yes")]
    rows += [experiment.Row("arrhythmia", "by-beat", one, page.OURS, 0, 0.8, 9, 9, 1.0, "yes") for one in "NSVFQ"]
    assert "N: f-AnoGAN, LSTM-VAE; S: LSTM-VAE; V:" in page.above(rows) and "mean: LSTM-VAE." in page.above(rows)
    write_csv(tmp_path / "baselines.csv", rows)
    command = ["benchmark", "baselines", "--tables-only", "--out", str(tmp_path)]
    assert cli.main(command) == 0 == cli.main(command)  # published rows are not there twice
    written = (tmp_path / "baselines.md").read_text()
    assert written in capsys.readouterr().out
    ecg, others = written.split("## Published, not run")
    names = [line.split(" | ")[0] for line in ecg.splitlines() if line.startswith("| ")]
    assert names.index("| LSTM-VAE") < names.index("| Deep SVDD") < names.index("| f-AnoGAN")
    assert ".750*" in ecg and ".875 " in ecg and "ADGAN" not in ecg
    assert "| mnist | ADGAN | one class normal | .999" in others
    with (tmp_path / "baselines.csv").open() as opened:
        saved = list(csv.DictReader(opened))
    assert sum(row["method"] == "ADGAN" for row in saved) == 20 + 5
    assert all("not to be ranked" in row["note"] for row in saved if row["method"] == "ADGAN" and row["auroc"])


def _rows(method: str, converged: Sequence[str | None], **more: Any) -> list[experiment.Row]:
    row = experiment.Row("arrhythmia", "by-beat", "", method, 0, 0.5, 9, 9, 1.0)
    return [
        replace(row, anomaly=anomaly, converged=one, **more) for anomaly, one in zip("NSVFQ", converged, strict=True)
    ]


def _tables_only(rows: Sequence[experiment.Row], out: Path) -> str:
    write_csv(out / "baselines.csv", rows)
    assert cli.main(["benchmark", "baselines", "--tables-only", "--out", str(out)]) == 0
    return (out / "baselines.md").read_text()


def test_one_class_that_has_not_converged_makes_all_of_its_method_unverified(tmp_path: Path) -> None:
    rows = _rows("LSTM-VAE", ["unverified", "yes", "yes", "yes", "yes"]) + _rows("Deep SVDD", ["yes"] * 5)
    rows += _rows("OCSVM, raw beats", [None] * 5)
    written = _tables_only(rows, tmp_path)
    cells = {line.split(" | ")[0]: line.split(" | ")[3:8] for line in written.splitlines() if line.startswith("| ")}
    assert cells["| LSTM-VAE"] == [".500*"] * 5
    assert cells["| Deep SVDD"] == cells["| OCSVM, raw beats"] == [".500"] * 5
    saved = experiment.ordered(read_csv(tmp_path / "baselines.csv", experiment.Row))
    found = {method: [row.converged for row in saved if row.method == method] for method in {r.method for r in rows}}
    assert found["LSTM-VAE"] == ["unverified"] + ["unverified by another class"] * 4
    assert found["Deep SVDD"] == ["yes"] * 5 and found["OCSVM, raw beats"] == [None] * 5
    assert "One such class makes all" in written and "'unverified by another class'" in written


def test_when_the_class_has_converged_after_all_the_others_are_as_before() -> None:
    judged = experiment.ordered(_rows("LSTM-VAE", ["unverified", "yes", "yes", "yes", "yes"]))
    assert experiment.ordered([replace(judged[0], converged="yes"), *judged[1:]]) == _rows("LSTM-VAE", ["yes"] * 5)


def test_the_page_says_the_seeds_and_the_commands_of_its_rows(tmp_path: Path) -> None:
    rows = _rows(page.OURS, ["yes"] * 5) + _rows("VAE + OCSVM", ["yes"] * 5, seed=1)
    rows += _rows("GAN-AD", ["yes"] * 5, train_points=10_000, note="shortened: 10,000 drawn of 13,525; 15 epochs")
    rows += _rows("LSTM-VAE", ["yes"] * 5, note="beta 1; 45 epochs") + _rows("LSTM-VAE", ["yes"] * 5, seed=2)
    rows += [experiment.Row("arrhythmia", "by-beat", "N", "f-AnoGAN", 7, note="missing: no trained run")]
    written = _tables_only(rows, tmp_path)
    seeds = {line.split(" | ")[0]: line.split(" | ")[2] for line in written.splitlines() if line.startswith("| ")}
    assert [seeds[f"| {name}"] for name in (page.OURS, "VAE + OCSVM", "GAN-AD", "LSTM-VAE")] == ["0", "1", "0", "0 2"]
    commands = written.split("## Commands")[1].split("```")[1].strip().splitlines()
    assert commands == [
        "ecgwatch benchmark baselines --method 'ecgwatch: S, 5,000 references'",
        "ecgwatch benchmark baselines --seed 1 --method 'VAE + OCSVM'",
        "ecgwatch benchmark baselines --seed 0 2 --epochs 45 --method LSTM-VAE",
        "ecgwatch benchmark baselines --most 10000 --method GAN-AD",
    ]


def test_the_committed_page_is_what_its_rows_give() -> None:
    docs = Path(__file__).parents[1] / "docs" / "benchmark"
    rows = experiment.ordered(read_csv(docs / "baselines.csv", experiment.Row))
    made = page.page(rows, read_csv(docs / "baselines-tuning.csv", experiment.Tuning))
    assert (docs / "baselines.md").read_text().strip() == made.strip()
    assert {row.converged for row in rows if row.method == "LSTM-VAE"} == {
        experiment.UNVERIFIED,
        experiment.UNVERIFIED_BY_ANOTHER,
    }


def test_without_rows_or_with_an_unknown_method_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["benchmark", "baselines", "--tables-only", "--out", str(tmp_path)]) == 78
    assert cli.main(["benchmark", "baselines", "--method", "magic", "--out", str(tmp_path)]) == 78
    assert capsys.readouterr().err.count("\n") == 2
