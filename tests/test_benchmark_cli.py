"""`ecgwatch benchmark`, from small files to tables."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ecgwatch import cli
from tests import idx_files
from training.benchmark import crowd, map_ways, neural_map, placement, placement_tables
from training.benchmark.rows import read_csv, write_csv
from training.datasets import images
from training.parameters import Parameters, defaults

torch.set_num_threads(1)
BASE = Parameters(**{**vars(defaults("mnist")), "epochs": 1, "batch": 20, "perplexity": 5.0})
EXPERIMENT = next(one for one in placement.experiments(["mnist"]) if one.name == "mnist-anomaly-3-0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model of one epoch on small files, its points placed in every way."""
    folder = tmp_path_factory.mktemp("placement")
    idx_files.write(folder / "mnist", of_part=300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(images.RELEASES, "mnist", idx_files.known(images.RELEASES["mnist"], folder / "mnist"))
        patch.setattr(neural_map, "STEPS", 100)
        placement.encode(EXPERIMENT, BASE, folder, folder / EXPERIMENT.name, torch.device("cpu"))
        placement.place(folder / EXPERIMENT.name, EXPERIMENT.seed)
    return folder


def _benchmark(runs: Path, what: str, *options: str) -> int:
    places = ["--runs", str(runs), "--out", str(runs / "out"), "--dataset", "mnist", "--only", EXPERIMENT.name]
    return cli.main(["benchmark", what, *places, *options])


def test_every_way_gets_a_row_and_the_same_points(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _benchmark(runs, "placement", "--tables-only") == 0
    with (runs / "out" / "auroc.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    at_one = {row["way"]: row for row in rows if row["k"] == "1"}
    assert list(at_one) == [*map_ways.WAYS, *map_ways.WITH_ALL, "reconstruction alone"]
    ours, permuted = (float(at_one[way]["d"]) for way in ("virtual peers", "virtual peers, map permuted"))
    assert ours == pytest.approx(permuted, abs=1e-4)
    assert at_one["UMAP"]["d"]
    assert at_one["reconstruction alone"]["d"] == ""
    printed = capsys.readouterr().out
    assert (runs / "out" / "tables.md").read_text() in printed
    assert "| virtual peers |" in printed and "3 anomalous" in printed
    for picture in ("d.png", "s.png", "s_best.png", f"maps-{EXPERIMENT.name}.png"):
        assert (runs / "out" / picture).stat().st_size > 0
    with (runs / "out" / "differences.csv").open() as opened:
        assert {row["against"] for row in csv.DictReader(opened)} == set(placement_tables.AGAINST)


def test_what_another_machine_computed_stays_in_the_tables(runs: Path) -> None:
    out = runs / "out"
    assert _benchmark(runs, "placement", "--tables-only") == 0
    here = read_csv(out / "auroc.csv", placement_tables.Row)
    ours = [row for row in here if row.way == placement_tables.OURS]
    before = [replace(row, dataset="arrhythmia", task="V anomalous", d=0.125) for row in ours]
    before += [replace(row, task="0 anomalous", d=0.875) for row in ours]
    unknown = [replace(row, task="of older code") for row in before]
    write_csv(out / "auroc.csv", [*here, *before, *unknown])
    assert _benchmark(runs, "placement", "--tables-only") == 0
    again = read_csv(out / "auroc.csv", placement_tables.Row)
    assert again == [*before, *here]
    page = (out / "tables.md").read_text()
    assert "| virtual peers | .875 |" in page and "| virtual peers | .125 |" in page
    assert "| arrhythmia | V anomalous | mean |" in page and "| mnist | 0 anomalous | 3 anomalous | mean |" in page


def test_a_model_of_which_nothing_is_placed_yet_is_not_in_the_tables(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / EXPERIMENT.name, tmp_path / EXPERIMENT.name, ignore=shutil.ignore_patterns("placed*"))
    assert _benchmark(tmp_path, "placement", "--tables-only") == 78
    assert "without --tables-only first" in capsys.readouterr().err


def test_a_damaged_file_is_named(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("points.npz", "parameters.json", "placed virtual peers.npz"):
        folder = tmp_path / EXPERIMENT.name
        shutil.copytree(runs / EXPERIMENT.name, folder)
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
        assert _benchmark(tmp_path, "placement", "--tables-only") == 66
        assert f"{folder / name} is damaged" in capsys.readouterr().err
        shutil.rmtree(folder)


def test_training_may_be_other_than_the_releases(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bases = []
    monkeypatch.setattr(placement, "run", lambda chosen, base, *rest: bases.append(base["mnist"]))
    assert _benchmark(runs, "placement", "--epochs", "3", "--precision", "bfloat16") == 0
    assert _benchmark(runs, "placement") == 0
    assert [(one.epochs, one.precision) for one in bases] == [(3, "bfloat16"), (20, "float32")]


def test_what_is_placed_is_not_placed_again(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for ways in (map_ways.WAYS, map_ways.WITH_ALL):
        for name in ways:
            monkeypatch.setitem(ways, name, lambda points: pytest.fail("placed again"))
    placement.place(runs / EXPERIMENT.name, EXPERIMENT.seed)


def test_test_points_hold_all_anomalies_and_no_training_image(runs: Path) -> None:
    with np.load(runs / EXPERIMENT.name / "points.npz") as saved:
        assert saved["abnormal"].sum() == (saved["kinds"] == "3").sum() == 30
        assert len(saved["test_latents"]) == 300  # the whole official test file: it is small
        assert len(saved["train_latents"]) + len(saved["held_out_latents"]) == 270


def test_draws_go_on_where_they_were_stopped_and_repeat(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "NORMAL", 60)
    monkeypatch.setattr(crowd, "REFERENCES", 100)
    monkeypatch.setattr(crowd, "LEAST_DRAWS", 2)
    monkeypatch.setattr(crowd, "MOST_DRAWS", 2)
    folder = runs / EXPERIMENT.name
    whole = crowd.run(folder, 0, counts=(10, 1000))
    assert [(one.count, one.number) for one in whole] == [(10, 0), (10, 1)]  # 1,000 the class lacks
    file = folder / "crowd.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    again = crowd.run(folder, 0, counts=(10,))
    assert [(one.count, one.number) for one in again] == [(one.count, one.number) for one in read_csv(file, crowd.Draw)]
    assert [one.joint for one in again] == pytest.approx([one.joint for one in whole], abs=1e-6)
    assert _benchmark(runs, "crowd") == 0
    (runs / "out" / "crowd-by-beat-0.csv").write_text("count,number,joint,frozen\n7,0,0.25,0.75\n7,1,0.5,0.75\n")
    assert _benchmark(runs, "crowd", "--tables-only") == 0
    page = (runs / "out" / "crowd.md").read_text()
    assert "| 10 | 2 |" in page and "## arrhythmia: N normal" in page and "| 7 | 2 | 0.375" in page
    assert (runs / "out" / "crowd.png").stat().st_size > 0


def test_without_anything_saved_it_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _benchmark(tmp_path, "placement", "--tables-only") == 78
    assert capsys.readouterr().err.count("\n") == 1
    assert _benchmark(tmp_path, "crowd") == 78
    assert "run 'ecgwatch benchmark placement' first" in capsys.readouterr().err
