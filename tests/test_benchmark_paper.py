"""The paper, cell by cell: from small files to tables, verdicts and the report."""

import argparse
import csv
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from multiprocessing.connection import Client, Listener, wait
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

from ecgwatch import cli
from ecgwatch.errors import ConfigError, DataError
from tests import idx_files
from tests.test_pipeline import made_record
from tests.wfdb_records import write_record
from training import train
from training.benchmark import map_ways, placement
from training.benchmark.auroc import auroc
from training.benchmark.paper import cells, choices, claims, report, results, tables
from training.benchmark.paper import cli as paper_cli
from training.benchmark.paper.cells import JOINT, JOINT_Z, Examples
from training.benchmark.paper.results import PER_PAIR, PLAIN, SAMPLED, THROUGH_MEAN, Cell, Row
from training.benchmark.placement import Experiment
from training.benchmark.placement_tables import ALPHAS, LATENT, OURS
from training.datasets import arrhythmia, images
from training.models import BetaVAE, encoded, make
from training.networks import SegmentConvolution
from training.parameters import Parameters, defaults
from training.run_folder import open_run, read_arrays

torch.set_num_threads(1)
BASE = {"mnist": Parameters(**{**vars(defaults("mnist")), "epochs": 12, "batch": 10, "perplexity": 5.0})}
CELL = Experiment("mnist", tuple("012345678"), 0)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command asks for the models that are made here."""
    monkeypatch.setattr(paper_cli, "_base", lambda dataset: BASE.get(dataset, defaults(dataset)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cell on small files."""
    folder = tmp_path_factory.mktemp("paper")
    idx_files.write(folder / "mnist", of_part=150)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(images.RELEASES, "mnist", idx_files.known(images.RELEASES["mnist"], folder / "mnist"))
        assert cells.run([CELL], BASE, folder, folder, 1, CPU) == 0
    return folder


@pytest.fixture(scope="module")
def saved(runs: Path) -> Cell:
    found = results.load(CELL, runs / CELL.name)
    assert found is not None
    return found


def _benchmark(runs: Path, *options: str) -> int:
    places = ["--runs", str(runs), "--out", str(runs / "out"), "--dataset", "mnist", "--tables-only"]
    return cli.main(["benchmark", "paper", *places, *options])


def test_anomalies_are_told_apart_after_training(saved: Cell) -> None:
    assert auroc(saved.nse[SAMPLED], saved.abnormal)[0] > 0.95
    assert auroc(saved.nse[THROUGH_MEAN], saved.abnormal)[0] > 0.95
    assert auroc(saved.ways[JOINT].test[:, 0], saved.abnormal)[0] > 0.9
    assert set(saved.ways) == {JOINT, JOINT_Z, LATENT, OURS}


def _noisy_squares(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """150 images, and which show a 9: squares in so much noise that no projection of pixels alone tells it apart."""
    pixels, kinds = np.random.default_rng(seed).integers(0, 120, (150, 28, 28)), np.arange(150) % 10
    for image, kind in zip(pixels, kinds.tolist(), strict=True):
        image[2 * kind : 2 * kind + 8, 4:20] += 90
    return (pixels.reshape(150, -1) / 255).astype(np.float32), kinds == 9


def test_before_training_neither_term_tells_an_anomaly_apart_and_after_it_both_do(tmp_path: Path) -> None:
    (x, held), (test, abnormal) = _noisy_squares(0), _noisy_squares(1)
    normal, parameters = x[~held], BASE["mnist"]

    def told(model: BetaVAE) -> list[float]:
        """AUROC of NSE, and of D to the nearest of the reference latents."""
        points = map_ways.Points(encoded(model, normal)[0], *[encoded(model, test)[0]] * 2, parameters.perplexity, 0)
        terms = cells.sample(model, test, torch.Generator().manual_seed(0)).nse, map_ways.latent(points).test[:, 0]
        return [float(auroc(one, abnormal)[0]) for one in terms]

    untrained = []
    for seed in range(20):
        torch.manual_seed(seed)
        untrained.append(told(make(parameters, 784).eval()))
    nse, d = np.mean(untrained, axis=0)
    assert abs(nse - 0.5) < 0.1 and abs(d - 0.5) < 0.2
    assert min(told(train.fit(normal, normal[::10], parameters, tmp_path, CPU))) > 0.9


def test_a_cell_of_ecg_goes_from_records_to_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, (name, beats) in enumerate({"a": 60, "b": 90, "c": 120}.items()):
        record = made_record(name, seed, beats)  # V: every tenth beat
        symbols = tuple("A" if number % 10 == 4 else symbol for number, symbol in enumerate(record.symbols))
        write_record(tmp_path / "mitdb", replace(record, symbols=symbols))
    monkeypatch.setattr(arrhythmia, "RECORDS", ("a", "b", "c"))
    monkeypatch.setattr(arrhythmia, "MITDB", replace(arrhythmia.MITDB, hashes={}, listing="", listed=()))
    monkeypatch.setattr(placement, "FULL", replace(placement.FULL, references=30))
    seen: list[placement.Prepared] = []
    prepare = placement.prepare
    monkeypatch.setattr(placement, "prepare", lambda *given: seen.append(prepare(*given)) or seen[-1])
    cell = Experiment("arrhythmia", tuple("NSFQ"), 0, encoder="cnn", split="by-time", share=0.5)
    base = Parameters(epochs=8, cooldown=1, batch=10, latent=4, perplexity=5.0, unit_latents=True)
    assert cells.run([cell], {"arrhythmia": base}, tmp_path, tmp_path, 1, CPU) == 0
    folder, (made,) = tmp_path / cell.name, seen
    beats, rows, test = made.data, made.parts["train"], made.parts["test"]
    whole = arrhythmia.split(beats, "by-time", cell.normal).train
    assert len(rows) == round(len(whole) / 2) and np.isin(rows, whole).all()
    assert isinstance(made.model.encoder, SegmentConvolution)
    assert set(beats.classes[rows].tolist()) == {"N", "S"}
    for name in "abc":
        times, tested, trained = (
            beats.samples[part][beats.records[part] == name] for part in (np.arange(len(beats)), test, rows)
        )
        last_fifth = times[0] + 0.8 * (times[-1] - times[0])
        assert tested.tolist() == times[times >= last_fifth].tolist()
        assert trained.max() < last_fifth - arrhythmia.MARGIN

    points, sampled = (read_arrays(folder / file) for file in ("points.npz", "sampled.npz"))
    of_record = beats.records[rows[points["references"]]].tolist()
    assert [of_record.count(name) for name in "abc"] == [10, 10, 10]  # evenly, though c is twice as long as a
    plain = train.fit(beats.x[rows], beats.x[rows], made.parameters, folder, CPU)  # as the checkpoint has it
    np.testing.assert_allclose(points["train_latents"].std(axis=0, ddof=1), 1, rtol=1e-3)
    assert np.abs(made.units - 1).min() > 0.05
    np.testing.assert_allclose(points["test_latents"] * made.units, encoded(plain, beats.x[test])[0], atol=1e-4)
    noise = torch.Generator().manual_seed(cell.seed)
    z = [cells.sample(plain, beats.x[part], noise).z for part in (rows[points["references"]], test)]
    np.testing.assert_allclose(sampled["references_z"], z[0], atol=1e-4)
    np.testing.assert_allclose(sampled["test_z"], z[1], atol=1e-4)

    saved = results.load(cell, folder)
    assert saved is not None and saved.kinds.tolist() == beats.classes[test].tolist()
    assert set(saved.kinds.tolist()) == {"N", "S", "V"} and saved.abnormal.tolist() == (saved.kinds == "V").tolist()
    found = results.rows(saved, folder)
    assert {(row.dataset, row.split, row.anomaly, row.network, row.share) for row in found} == {
        ("arrhythmia", "by-time", "V", "cnn", 0.5)
    }
    assert {(row.test, row.abnormal) for row in found} == {(len(test), int((beats.classes[test] == "V").sum()))}
    assert np.isfinite([[row.fixed or 0.0, *row.auroc] for row in found]).all()
    for placing in (JOINT, JOINT_Z, LATENT, OURS):
        (row,) = choices.at(found, placing)
        assert row.auroc[ALPHAS.index(1.0)] > 0.8  # a wide, inverted beat is not drawn by who has seen none


def test_a_cell_that_was_stopped_ends_as_one_that_was_not(
    runs: Path, saved: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(images.RELEASES, "mnist", idx_files.known(images.RELEASES["mnist"], runs / "mnist"))
    whole, fit = map_ways.joint, train.fit
    with monkeypatch.context() as stopping:
        stopping.setattr(train, "fit", lambda *given: pytest.fail("stopped") if fit(*given, stop_after=5) else None)
        stopping.setattr(train, "machine", lambda on: "another machine")
        with pytest.raises(pytest.fail.Exception):
            cells.run([CELL], BASE, runs, tmp_path, 1, CPU)
    with monkeypatch.context() as stopping:
        stopping.setattr(map_ways, "joint", lambda points: pytest.fail("stopped"))
        with pytest.raises(pytest.fail.Exception):
            cells.run([CELL], BASE, runs, tmp_path, 1, CPU)
    assert not cells.done(tmp_path / CELL.name) and cells.done(tmp_path / CELL.name, train_only=True)
    monkeypatch.setattr(train, "fit", lambda *given: pytest.fail("trained again"))
    monkeypatch.setattr(map_ways, "joint", whole)
    assert cells.run([CELL], BASE, runs, tmp_path, 1, CPU) == 0
    again = results.load(CELL, tmp_path / CELL.name)
    assert again is not None
    made = json.loads((tmp_path / CELL.name / "made.json").read_text())
    assert made == {"seconds": None, "machine": f"another machine, {train.machine(CPU)}"}
    assert _as_measured(again, tmp_path) == _as_measured(saved, runs)


def _as_measured(cell: Cell, folder: Path) -> list[Row]:
    return [replace(row, seconds=None, map_seconds=None, machine="") for row in results.rows(cell, folder / CELL.name)]


def test_half_a_cell_does_not_stand_where_another_machine_made_all_of_it(
    runs: Path, saved: Cell, tmp_path: Path
) -> None:
    whole = results.saved_rows(CELL, runs / CELL.name)
    assert whole == results.rows(saved, runs / CELL.name)
    shutil.copytree(runs / CELL.name, tmp_path / CELL.name)
    assert results.saved_rows(CELL, tmp_path / CELL.name) == whole
    placement.way_file(tmp_path / CELL.name, JOINT).unlink()
    half = results.saved_rows(CELL, tmp_path / CELL.name)
    assert results.joined(half, whole, [CELL]) == whole


def test_figures_are_counted_again_where_the_cell_is_newer(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / CELL.name
    shutil.copytree(runs / CELL.name, folder)
    before = results.saved_rows(CELL, folder)
    made = json.loads((folder / "made.json").read_text())
    (folder / "made.json").write_text(json.dumps(made | {"machine": "another"}))
    after = results.saved_rows(CELL, folder)
    assert [row.machine for row in after] == ["another"] * len(before)
    older = (folder / "rows.csv").read_text().replace(",precision,", ",accuracy,", 1)
    (folder / "rows.csv").write_text(older)
    assert results.saved_rows(CELL, folder) == after


def test_cells_trained_in_bfloat16_are_named(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / CELL.name
    shutil.copytree(runs / CELL.name, folder)
    file = folder / "parameters.json"
    file.write_text(file.read_text().replace('"precision": "float32"', '"precision": "bfloat16"'))
    rows = results.saved_rows(CELL, folder)
    assert {row.precision for row in rows} == {"bfloat16"}
    both = [*rows, *results.saved_rows(CELL, runs / CELL.name)]
    options = [line["ecgwatch benchmark paper"] for line in tables.trained(both)]
    plain = "--dataset mnist --anomaly 9 --beta 0.01 --seed 0"
    assert options == [f"{plain} --precision bfloat16", plain]


def test_models_are_trained_in_float32_unless_asked_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bases: list[Mapping[str, Parameters]] = []
    monkeypatch.setattr(cells, "run", lambda asked, base, *rest: bases.append(base))
    for options in ([], ["--precision", "bfloat16"]):
        places = ["--runs", str(tmp_path), "--out", str(tmp_path), "--train-only"]
        assert cli.main(["benchmark", "paper", *places, *options]) == 0
    assert [{one.precision for one in base.values()} for base in bases] == [{"float32"}, {"bfloat16"}]


def test_a_killed_process_ends_the_command_and_the_others() -> None:
    others = [replace(CELL, seed=seed) for seed in (1, 2)]
    with pytest.raises(ConfigError, match=r"was killed.*smaller --jobs; the same command goes on"):
        cells._in_processes(_killed, others, 2, 2, None)
    # a child that the pool's own thread has waited for stays in the list for a moment
    assert all(wait([child.sentinel], timeout=60) for child in multiprocessing.active_children())


def test_cells_in_processes_are_counted_and_their_epochs_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    two = [replace(CELL, seed=seed) for seed in (1, 2)]
    for one, epochs in zip(two, (3, 17), strict=True):
        (tmp_path / one.name).mkdir()
        (tmp_path / one.name / "losses.csv").write_text("epoch,total\n" + "1,2\n" * epochs)
    assert cells._in_processes(_bar_and_name, two, 2, 2, None, partial(cells._progress, two, tmp_path))
    out, error = capfd.readouterr()  # of the processes too
    assert sorted(out.split()) == sorted(one.name for one in two)
    assert "2/2" in error and "epochs 3, 17" in error and "training" not in error


def test_no_process_outlives_a_command_that_was_killed() -> None:
    with Listener() as listener:
        command = multiprocessing.get_context("spawn").Process(target=_command, args=(listener.address,))
        command.start()
        with listener.accept() as child:
            command.kill()
            command.join()
            assert child.poll(60)
            with pytest.raises(EOFError):  # its end of the connection has gone with it
                child.recv()


def _command(address: str) -> None:
    cells._in_processes(partial(_connected, address=address), [CELL], 1, 1, None)


def _connected(cell: Experiment, address: str) -> str:
    with Client(address):
        threading.Event().wait()
    return cell.name


def _bar_and_name(cell: Experiment) -> str:
    for _ in tqdm(range(2), desc="training"):
        pass
    return cell.name


def _killed(cell: Experiment) -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return cell.name


def test_a_folder_of_another_run_or_a_torn_checkpoint_is_left_out_and_said(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(images.RELEASES, "mnist", idx_files.known(images.RELEASES["mnist"], runs / "mnist"))
    other, torn = replace(CELL, seed=1), replace(CELL, seed=2)
    open_run(tmp_path / other.name, replace(BASE["mnist"], latent=3))
    open_run(tmp_path / torn.name, replace(BASE["mnist"], normal=torn.normal, seed=2))
    (tmp_path / torn.name / "checkpoint.safetensors").write_bytes(b"torn")
    assert cells.run([other, torn], BASE, runs, tmp_path, 1, CPU) == 2
    said = capsys.readouterr().out
    assert "holds a run with other parameters (latent 3 there, 10 now" in said
    assert "checkpoint.safetensors is damaged" in said and "remove it" in said


def test_a_budget_ends_the_work_and_leaves_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cells.run([CELL, replace(CELL, seed=1)], BASE, tmp_path, tmp_path, 1, CPU, budget_s=0.0) == 2
    assert "2 of 2 cells are left" in capsys.readouterr().out


def test_a_cell_in_a_process_of_its_own_needs_no_model_to_map_what_is_encoded(
    runs: Path, saved: Cell, tmp_path: Path
) -> None:
    shutil.copytree(runs / CELL.name, tmp_path / CELL.name)
    placement.way_file(tmp_path / CELL.name, JOINT).unlink()
    assert cells.run([CELL], BASE, tmp_path, tmp_path, 1, CPU, budget_s=600.0) == 0
    again = results.load(CELL, tmp_path / CELL.name)
    assert again is not None and _as_measured(again, tmp_path) == _as_measured(saved, runs)


def test_points_are_encoded_whole_bits_and_in_any_batch_alike() -> None:
    model, x = make(BASE["mnist"], 784), np.random.default_rng(0).random((30, 784), np.float32)
    seen: list[bool] = []
    model.encoder.register_forward_hook(lambda *given: seen.append(torch.backends.cudnn.allow_tf32))
    whole, parts = encoded(model, x), encoded(model, x, batch=7)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    cells.sample(model, x, torch.Generator())
    assert seen == [False] * 7 and torch.backends.cudnn.allow_tf32


def test_what_is_done_is_not_done_again(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "prepare", lambda *given: pytest.fail("prepared again"))
    assert cells.run([CELL], BASE, runs, runs, 1, CPU) == 0


def test_a_data_set_that_is_not_there_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*given: object) -> None:
        raise DataError("small-norb is not there")

    monkeypatch.setattr(placement, "prepare", refuse)
    assert cells.run([CELL, replace(CELL, seed=1)], BASE, tmp_path, tmp_path, 1, CPU) == 2
    assert capsys.readouterr().out.count("is left out: small-norb is not there") == 2


def test_figures_are_those_counted_by_hand() -> None:
    """Normal points n, m; abnormal a, b. NSE: a above both, b above n: 3 of 4 pairs. D: a above m alone: 1 of 4."""
    nse, d = np.array([1.0, 3, 4, 2]), np.array([5.0, 1, 2, 0.5])
    abnormal = np.array([False, False, True, True])
    places = np.array([[0.0, 0], [3, 4]])  # one pair, 5 apart
    way = map_ways.Placed(np.stack([d, d, d], 1), np.array([[0.0], [1], [2]]).repeat(3, 1), places, places)
    found = results.over_alpha(nse, d, abnormal)
    assert (found[-1], found[0]) == (0.75, 0.25)
    half = [3.0, 2.0, 3.0, 1.25]  # a ties with n and is above m, b is below both: 1.5 of 4
    assert found[ALPHAS.index(0.5)] == np.mean([0.5, 1, 0, 0]) and half == (0.5 * nse + 0.5 * d).tolist()
    assert results.unit(results.PRINTED, way) == 0.5 * (5 + 5) / 2  # both orders of the pair, over n = 2
    assert results.unit(results.PER_PAIR, way) == 0.5 * (5 + 5) / 4


def test_a_line_of_table_1_is_what_is_counted_by_hand(tmp_path: Path) -> None:
    """Four normal points n1 to n4, two abnormal a and b: eight pairs, ties half.

    D is in thousands, so between alpha 0 and 1 it alone decides, and NSE where D ties.
    """
    abnormal = np.array([False, False, False, False, True, True])
    nse = {SAMPLED: np.array([6.0, 2, 3, 4, 4, 5]), THROUGH_MEAN: np.array([1.0, 2, 3, 4, 4.5, 0.75])}
    held_out = {SAMPLED: np.array([1.0, 2, 3]), THROUGH_MEAN: np.array([1.0, 2, 3])}  # median 2, half a unit above it
    far = 1e9 * np.eye(2)  # so far apart that a distance divided by theirs would say nothing

    def placed(d: list[float], scale: list[float]) -> map_ways.Placed:
        others = [[0.0, 0]] * 4 + [[9e3, 9e3]] * 2  # with k = 3 and 5 all eight pairs are right
        scales = 1e3 * np.array([scale] * 3).T
        return map_ways.Placed(np.column_stack([1e3 * np.array(d), others]), scales, far, far)

    ways = {
        JOINT: placed([1, 1, 2, 3, 2, 3], scale=[1, 2, 3]),
        JOINT_Z: placed([1, 1, 2, 2, 2, 2], scale=[1, 2, 3]),
        LATENT: placed([0, 0, 0, 0, 9, 9], scale=[1, 2, 3]),
        OURS: placed([2, 1, 2, 3, 2, 3], scale=[2, 4, 6]),
    }
    none = np.zeros(0)
    cell = Cell(CELL, nse, held_out, abnormal, none, ways, Examples(*[none] * len(Examples._fields)))
    open_run(tmp_path, BASE["mnist"])
    tables.write_csv(tmp_path / "table-1.csv", tables.table_1(results.rows(cell, tmp_path)))
    with (tmp_path / "table-1.csv").open() as file:
        (line,) = (one for one in csv.DictReader(file) if (one["dataset"], one["class"]) == ("mnist", "9"))
    assert {name: value for name, value in line.items() if name.startswith("ours")} == {
        # NSE alone: a (4) is above n2 and n3 and ties with n4, b (5) is above n2, n3 and n4: 5.5 of 8
        "ours, reconstruction only": "0.6875",
        # NSE through the mean alone: a (4.5) is above all, b (.75) above none: 4 of 8
        "ours, reconstruction only, fixed": "0.5000",
        # between alpha 0 and 1, the better of both: of mu a (D 2, NSE 4) is above all but n4 (3, 4), b (3, 5) is above
        # all: 7 of 8; of z a (2, 4) is above n1 to n3 and ties with n4 (2, 4), b (2, 5) is above all: 7.5 of 8
        "ours, joint map, chosen": "0.9375",
        # NSE through the mean + D of mu, of one unit after scaling: n 2, 3, 5, 7; a (4.5 + 2) is above three,
        # b (.75 + 3) above n1 and n2: 5 of 8
        "ours, joint map, fixed": "0.6250",
        # between alpha 0 and 1: a (2, 4) is above n2 and n3 (2, 3), not n1 (2, 6); b (3, 5) above all: 6 of 8
        "ours, streaming, chosen": "0.7500",
        # D of half the weight, its scale being twice as wide: n 2, 2.5, 4, 5.5; a (4.5 + 1) is above three and ties
        # with n4, b (.75 + 1.5) is above n1: 4.5 of 8
        "ours, streaming, fixed": "0.5625",
    }


def _row(**other: object) -> Row:
    made = {"initial": "torch", "precision": "float32", "trained": "1 + 0", "seconds": None, "map_seconds": None}
    made |= {"machine": "", "auroc": ()}
    which = ("arrhythmia", "by-beat", "N", "tcn", 0.01, 1.0, 0, False, JOINT, 1, PLAIN, SAMPLED, None, 2, 1)
    return replace(Row(*which, **made), **other)  # type: ignore[arg-type]  # its fields


def _rows(of: Mapping[str, float], **other: object) -> list[Row]:
    """Rows of several classes with the same AUROC at every alpha."""
    return [_row(anomaly=name, auroc=(value,) * len(ALPHAS), **other) for name, value in of.items()]


FIVE = dict.fromkeys("NSVFQ", 0.9)


def test_tables_choose_over_beta_and_alpha_and_average_seeds_before() -> None:
    low = tuple(0.7 if alpha == 0.9 else 0.6 for alpha in ALPHAS)
    high = tuple(0.9 if alpha == 0.9 else 0.5 for alpha in ALPHAS)
    rows = [_row(auroc=low), _row(auroc=high, seed=1), _row(auroc=(0.75,) * len(ALPHAS), beta=1.0)]
    rows.append(_row(auroc=(0.5,) * len(ALPHAS), nse=THROUGH_MEAN, fixed=0.625))
    assert choices.best_of(choices.at(rows, JOINT)) == pytest.approx((0.8, 0.01, 0.9))
    lucky = _row(auroc=(0.95,) * len(ALPHAS), beta=0.05)  # one seed beside the mean of two
    assert choices.best_of(choices.at([*rows, lucky], JOINT)) == pytest.approx((0.8, 0.01, 0.9))
    (line,) = (one for one in tables.table_2(rows) if (one["dataset"], one["class"]) == ("arrhythmia", "N"))
    assert line["mu, paper"] == 0.911 and line["mu, chosen"] == pytest.approx(0.8) and line["mu, fixed"] == 0.625
    assert line["mu, difference"] == pytest.approx(0.8 - 0.911) and line["z, chosen"] is None and line["seeds"] == 2


def test_a_mean_that_lacks_a_class_is_empty_and_a_goal_without_it_neither_met_nor_missed() -> None:
    whole = tables.table_1(_rows(FIVE))
    lacking = tables.table_1(_rows(dict.fromkeys("NSVF", 0.9)))
    means = [
        next(one for one in t if (one["dataset"], one["class"]) == ("arrhythmia", "mean")) for t in (whole, lacking)
    ]
    assert means[0]["ours, joint map, chosen"] == pytest.approx(0.9) and means[1]["ours, joint map, chosen"] is None
    said = [next(g["reached"] for g in tables.goals(t, []) if g["dataset"] == "arrhythmia") for t in (whole, lacking)]
    assert said == ["missed", ""]
    assert "| arrhythmia | Q | paced, unknown |  |" in tables.markdown(lacking)


def test_goals_say_beside_the_best_of_all_betas_what_one_beta_reaches() -> None:
    rows = [*_rows(FIVE), *_rows(dict.fromkeys("NSVFQ", 0.95), beta=0.05)]
    (goal,) = (one for one in tables.goals(tables.table_1(rows), rows) if one["dataset"] == "arrhythmia")
    assert (goal["ours"], goal["ours, beta .01"], goal["reached"]) == (pytest.approx(0.95), pytest.approx(0.9), "met")


def _verdict(name: str, rows: list[Row]) -> str:
    (claim,) = (one for one in claims.CLAIMS if one.claim == name)
    return claims.judge(claim, rows).verdict


def test_a_claim_holds_in_part_or_not_by_the_share_of_its_cases_and_is_not_tested_without_any() -> None:
    t_sne = "t-SNE is better than latent distance"
    latent = _rows(FIVE, placing=LATENT)
    above = [{name: 0.95 if name in won else 0.85 for name in "NSVFQ"} for won in ("NSVFQ", "NSV", "N")]
    said = [_verdict(t_sne, [*latent, *_rows(one)]) for one in above]
    assert said == [claims.HOLDS, claims.IN_PART, claims.FAILS]
    assert _verdict(t_sne, latent) == claims.UNTESTED


def test_each_claim_follows_its_rule() -> None:
    rows = _rows(FIVE)
    for k, other in ((3, 0.905), (5, 0.92)):
        rows += _rows(dict.fromkeys("NSVFQ", other), k=k)
    assert _verdict("k of 1, 3 and 5 are alike", rows) == claims.IN_PART  # 3 is, 5 is not
    assert _verdict("mu and z are alike", rows + _rows({"N": 0.92}, placing=JOINT_Z)) == claims.FAILS
    assert _verdict("beta < 1 is best", rows) == claims.UNTESTED
    from_one = _rows({"N": 0.8, "S": 0.99, "V": 0.8, "F": 0.99, "Q": 0.8}, beta=1.0)
    images = [
        one
        for name, kind in (("mnist", "7"), ("fashion-mnist", "3"))
        for beta, of_beta in ((0.01, 0.9), (1.0, 0.8))
        for one in _rows({kind: of_beta}, dataset=name, split="by-image", network="table 3", beta=beta)
    ]
    assert _verdict("beta < 1 is best", rows + from_one) == claims.UNTESTED  # figure 2 has five data sets, this is one
    assert _verdict("beta < 1 is best", rows + from_one[:2] + images) == claims.UNTESTED  # and five classes
    assert _verdict("beta < 1 is best", rows + from_one + images) == claims.IN_PART
    hardly = _rows(dict.fromkeys("NSVFQ", 0.897), beta=1.0)  # .003 below is no more than another seed
    assert _verdict("beta < 1 is best", rows + hardly + images) == claims.FAILS
    tcn = "TCN is above CNN and LSTM in all five classes"
    others = _rows(dict.fromkeys("NSVFQ", 0.8), network="cnn") + _rows(dict.fromkeys("NSVF", 0.8), network="lstm")
    assert _verdict(tcn, rows + others) == claims.UNTESTED  # Q, without an LSTM, would decide
    ahead = [_rows(dict.fromkeys(won, 0.95), network="cnn") for won in ("NSV", "NS")]
    assert [_verdict(tcn, rows + one) for one in ahead] == [claims.FAILS, claims.UNTESTED]  # no LSTM could mend three
    assert _verdict(tcn, rows + others + _rows({"Q": 0.8}, network="lstm")) == claims.HOLDS
    assert _verdict(tcn, rows + others + _rows({"Q": 0.9}, network="lstm")) == claims.IN_PART
    assert _verdict("CNN is weak on N", rows + others) == claims.FAILS
    seeds = [*_rows({"N": 0.9}), *_rows({"N": 0.7}, seed=1), *_rows({"N": 0.85}, beta=1.0), *from_one[1:], *images]
    assert _verdict("beta < 1 is best", [*seeds, *rows[1:5]]) == claims.IN_PART  # .9 of seed 0 is above .85, .8 is not
    weak = _rows({"N": 0.6, **dict.fromkeys("SVFQ", 0.85)}, network="cnn")
    assert _verdict("CNN is weak on N", rows + weak) == claims.HOLDS
    late = tuple(0.9 if alpha == 0.99 else 0.5 for alpha in ALPHAS)
    early = tuple(0.9 if alpha <= 0.4 else 0.5 for alpha in ALPHAS)
    normalised = [_row(auroc=late), _row(auroc=early, distance=results.PER_PAIR)]
    assert _verdict("normalised distance eases alpha (1/n^2)", normalised) == claims.HOLDS
    assert _verdict("normalised distance lowers the best alpha (1/n^2)", normalised) == claims.HOLDS
    assert _verdict("normalised distance lowers the best alpha (as printed)", normalised) == claims.UNTESTED


def test_the_grid_holds_every_cell_once_and_what_most_figures_need_first() -> None:
    grid = cells.grid()
    assert len({one.name for one in grid}) == len(grid) == len(set(grid))
    assert [one.seed for one in grid[:15]] == [0] * 5 + [1] * 5 + [2] * 5
    assert all(one.dataset == "arrhythmia" and one.beta == 0.01 for one in grid[:15])
    assert grid[0].name == "by-beat-anomaly-N-0"  # what `benchmark placement` has trained is not trained again
    assert not [one for one in grid if one.split == "inter-patient" and one.absent == ("Q",)]
    assert {one.beta for one in grid if (one.dataset, one.absent) == ("arrhythmia", ("F",))} == set(cells.ALL_BETAS)
    assert [one.name for one in cells.grid(quick=True)] == [f"{one.name}-quick" for one in grid]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], {(0.01, "tcn", "by-beat", 1.0, 0)}),
        (["--encoder", "cnn"], {(0.01, "cnn", "by-beat", 1.0, 0)}),
        (["--split", "by-time"], {(0.01, "tcn", "by-time", 1.0, 0)}),
        (["--beta", "0.1", "1"], {(0.1, "tcn", "by-beat", 1.0, 0), (1.0, "tcn", "by-beat", 1.0, 0)}),
    ],
)
def test_the_shortened_form_takes_one_of_each_where_no_option_asks_for_others(
    options: list[str], wanted: set[tuple[float, str, str, float, int]]
) -> None:
    parser = argparse.ArgumentParser()
    paper_cli.add_arguments(parser)
    args = parser.parse_args(["--quick", "--dataset", "arrhythmia", *options])
    found = cells.matching(cells.grid(quick=True), paper_cli.wanted(args))
    assert {(one.beta, one.encoder, one.split_name, one.share, one.seed) for one in found} == wanted


def test_the_shortened_tables_hold_whatever_was_computed() -> None:
    parser = argparse.ArgumentParser()
    paper_cli.add_arguments(parser)
    args = parser.parse_args(["--quick", "--tables-only"])
    grid = cells.grid(quick=True)
    assert cells.matching(grid, paper_cli.wanted(args)) == grid


def test_the_report_holds_its_pictures_and_what_another_machine_computed_and_ends_with_the_verdicts(runs: Path) -> None:
    other = _rows(FIVE, machine="another")
    results.write_csv(runs / "out" / "cells.csv", other)
    assert _benchmark(runs) == 0
    rows = results.read_csv(runs / "out" / "cells.csv")
    assert [row.machine for row in rows if row.dataset == "arrhythmia"] == ["another"] * 5
    made = results.rows(results.load(CELL, runs / CELL.name) or pytest.fail(), runs / CELL.name)
    assert [row for row in rows if row.dataset == "mnist"] == made  # to the last digit: tables of either are the same
    page = (runs / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(list((runs / "out").glob("figure-*.png"))) >= 1
    assert "http" not in page and report.QUICK not in page
    assert page.rindex("paper's claims".replace("'", "&#x27;")) > page.rindex("Figure size")
    assert "| mnist | 9 |" in (runs / "out" / "paper.md").read_text()
    assert (runs / "out" / "figure-12.png").stat().st_size < 100_000


def test_the_shortened_form_is_marked_and_keeps_its_own_files(runs: Path) -> None:
    out = runs / "out-quick"
    results.write_csv(out / "cells-quick.csv", _rows(FIVE, quick=True))
    assert cli.main(["benchmark", "paper", "--quick", "--tables-only", "--runs", str(runs), "--out", str(out)]) == 0
    assert (
        report.QUICK in (out / "paper-quick.md").read_text()
        and 'class="quick"' in (out / "report-quick.html").read_text()
    )
    assert not (out / "paper.md").exists()
    page = (out / "paper-quick.md").read_text()
    assert "## Goals" not in page and "20 epochs" not in page and "4 epochs and 1 more" in page
    assert "shortened" in (out / "table-1-quick.csv").read_text().splitlines()[0]


def test_a_table_of_which_nothing_is_computed_says_so(runs: Path) -> None:
    out = runs / "out-lstm"
    results.write_csv(out / "cells-quick.csv", _rows(FIVE, quick=True, network="lstm"))
    assert cli.main(["benchmark", "paper", "--quick", "--tables-only", "--runs", str(runs), "--out", str(out)]) == 0
    for name in ("paper-quick.md", "report-quick.html"):
        page = (out / name).read_text()
        scores = page[page.index("The four scores") : page.index("ECG: by beat, by time")]
        assert tables.NOTHING in scores and "table" not in scores


@pytest.fixture
def small_grid(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's grid holds the small files alone."""
    monkeypatch.setitem(images.RELEASES, "mnist", idx_files.known(images.RELEASES["mnist"], runs / "mnist"))
    monkeypatch.setattr(paper_cli, "_base", BASE.__getitem__)
    monkeypatch.setattr(cells, "DATASETS", ("mnist",))


def _computing(runs: Path, out: Path, *options: str) -> int:
    """Run the command itself on the small files, with as little training as --quick asks for."""
    places = ["--data", str(runs), "--runs", str(out / "runs"), "--out", str(out), "--jobs", "1", "--device", "cpu"]
    return cli.main(["benchmark", "paper", "--quick", "--dataset", "mnist", "--anomaly", "9", *places, *options])


@pytest.mark.usefixtures("small_grid")
def test_the_command_computes_a_cell_and_does_not_what_the_tables_have(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _computing(runs, tmp_path) == 0
    (row,) = [one for one in tables.terms(results.read_csv(tmp_path / "cells-quick.csv")) if one["class"] == "9"]
    assert row["S, joint map"] > 0.9 and "Figure 12" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "runs")
    drawn = (tmp_path / "figure-12-quick.png").read_bytes()
    monkeypatch.setattr(placement, "prepare", lambda *given: pytest.fail("trained again"))
    assert _computing(runs, tmp_path, "--missing") == 0
    assert "1 cells stand in" in capsys.readouterr().out
    assert (tmp_path / "figure-12-quick.png").read_bytes() == drawn


@pytest.mark.usefixtures("small_grid")
def test_one_command_trains_and_another_maps_what_is_trained_and_trains_nothing(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _computing(runs, tmp_path, "--train-only") == 0
    assert "1 of 1 cells are trained and encoded in" in capsys.readouterr().out
    assert not (tmp_path / "cells-quick.csv").exists()
    assert _computing(runs, tmp_path, "--map-only", "--anomaly", "8") == 78
    assert "holds none of these cells trained; --train-only trains them" in capsys.readouterr().err
    monkeypatch.setattr(placement, "prepare", lambda *given: pytest.fail("trained again"))
    assert _computing(runs, tmp_path, "--map-only", "--anomaly", "8", "9") == 0
    assert {row.anomaly for row in results.read_csv(tmp_path / "cells-quick.csv")} == {"9"}


def test_a_data_set_that_is_missing_is_not_said_to_want_another_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*given: object) -> None:
        raise DataError("mnist is not there")

    monkeypatch.setattr(placement, "prepare", refuse)
    assert _computing(tmp_path, tmp_path) == 66
    said = capsys.readouterr()
    assert "is left out: mnist is not there" in said.out and "the lines above say what is missing" in said.err


def test_a_picture_of_which_a_cell_is_elsewhere_stays(runs: Path, saved: Cell) -> None:
    rows = results.rows(saved, runs / CELL.name)
    elsewhere = [replace(row, anomaly="8") for row in rows]

    def find(dataset: str, anomaly: str, **other: object) -> Cell | None:
        return saved if (dataset, anomaly, other.get("beta", 0.01)) == ("mnist", "9", 0.01) else None

    alone, beside = (report.drawn(made, find)["12"] for made in (rows, [*rows, *elsewhere]))
    assert alone.draw and alone.whole and "not computed: mnist, 0; mnist, 1" in alone.caption
    assert beside.draw and not beside.whole and "mnist, 8" not in beside.caption


def test_the_caption_of_the_heat_maps_counts_the_betas_of_seed_0() -> None:
    rows = [*_rows({"F": 0.9}), *_rows({"F": 0.9}, beta=2.0, seed=1)]
    caption = report.drawn(rows, lambda *which, **other: None)["2"].caption
    assert "betas computed: mnist, 7: 0 of 18; " in caption
    assert caption.endswith("arrhythmia, F: 1 of 18")


def test_a_torn_table_is_refused_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out" / "cells.csv"
    results.write_csv(file, _rows(FIVE))
    file.write_text(file.read_text()[:-40])
    assert _benchmark(tmp_path) == 78
    assert f"{file}, line 6: " in capsys.readouterr().err


def test_a_file_of_other_columns_is_refused_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "out" / "cells.csv"
    file.parent.mkdir()
    file.write_text("a,b\n1,2\n")
    assert _benchmark(tmp_path) == 78
    assert f"{file}, line 2: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["points.npz", "sampled.npz", "placed joint map.npz", "parameters.json", "made.json"])
def test_a_damaged_file_is_named_and_the_other_cells_go_on(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    torn = replace(CELL, normal=tuple("123456789"))
    for cell in (CELL, torn):
        shutil.copytree(runs / CELL.name, tmp_path / cell.name, ignore=shutil.ignore_patterns("rows.csv"))
    there = json.loads((runs / CELL.name / "parameters.json").read_text())
    there["parameters"]["normal"] = torn.normal
    (tmp_path / torn.name / "parameters.json").write_text(json.dumps(there))
    content = (tmp_path / torn.name / name).read_bytes()
    (tmp_path / torn.name / name).write_bytes(content[: len(content) // 2])
    assert _benchmark(tmp_path) == 0
    said = capsys.readouterr().out
    assert f"{torn.name} is left out: {tmp_path / torn.name / name}" in said
    assert {row.anomaly for row in results.read_csv(tmp_path / "out" / "cells.csv")} == {"9"}


def test_a_run_that_was_made_with_other_parameters_is_left_out(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / CELL.name, tmp_path / CELL.name)
    file = tmp_path / CELL.name / "parameters.json"
    there = json.loads(file.read_text())
    there["parameters"] |= {"precision": "bfloat16", "initial": "torch"}  # these the tables name
    file.write_text(json.dumps(there))
    assert _benchmark(tmp_path) == 0
    capsys.readouterr()
    there["parameters"] |= {"epochs": 2, "beta": 7.0}
    file.write_text(json.dumps(there))
    shutil.rmtree(tmp_path / "out")
    assert _benchmark(tmp_path) == 78
    assert "other parameters (beta 7.0 there, 0.01 now, epochs 2 there, 12 now)" in capsys.readouterr().out


def test_a_score_that_is_no_number_makes_no_figures(saved: Cell, runs: Path) -> None:
    nse = saved.nse[SAMPLED].copy()
    nse[saved.abnormal] = np.nan
    with pytest.raises(DataError, match="NSE or D of a test point is no number"):
        results.rows(saved._replace(nse={**saved.nse, SAMPLED: nse}), runs / CELL.name)


def test_rows_that_another_command_wrote_meanwhile_stay(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _rows({"N": 0.9})

    def computing(*given: object) -> int:
        results.write_csv(tmp_path / "cells.csv", other)
        return 0

    monkeypatch.setattr(cells, "run", computing)
    places = ["--runs", str(runs), "--out", str(tmp_path), "--dataset", "mnist"]
    assert cli.main(["benchmark", "paper", *places]) == 0
    assert {row.dataset for row in results.read_csv(tmp_path / "cells.csv")} == {"mnist", other[0].dataset}


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cells, "run", lambda *given: pytest.fail("computed"))
    (tmp_path / "file").write_text("")
    for option, other in (("--out", "--runs"), ("--runs", "--out")):
        assert cli.main(["benchmark", "paper", option, str(tmp_path / "file" / "x"), other, str(tmp_path / "y")]) == 78
        assert f"{option} {tmp_path / 'file' / 'x'}: cannot be written to: Not a directory" in capsys.readouterr().err
    (tmp_path / "y" / "cells.csv").write_bytes(bytes(range(256)))
    assert cli.main(["benchmark", "paper", "--tables-only", "--out", str(tmp_path / "y")]) == 78
    assert f"{tmp_path / 'y' / 'cells.csv'} is no CSV file" in capsys.readouterr().err


def test_a_piece_that_ends_as_planned_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cells, "run", lambda *given: 1)
    places = ["--runs", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main(["benchmark", "paper", "--budget", "5", *places]) == 0
    assert "the same command goes on" in capsys.readouterr().out
    assert cli.main(["benchmark", "paper", *places]) == 66  # all were left out
    there = _rows({"9": 0.9}, dataset="mnist", split="by-image", network="table 3")
    results.write_csv(tmp_path / "out" / "cells.csv", there)
    of_it = ["--dataset", "mnist", "--anomaly", "9", "--beta", "0.01", "--map-only"]
    assert cli.main(["benchmark", "paper", *of_it, *places]) == 78
    assert cli.main(["benchmark", "paper", *of_it, "--missing", *places]) == 0


def test_a_cell_has_the_same_weights_however_many_run_at_once(tmp_path: Path, runs: Path) -> None:
    torch.set_num_threads(2)  # as torch does on two cores
    idx_files.write(tmp_path / "mnist", of_part=150)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(images.RELEASES, "mnist", idx_files.known(images.RELEASES["mnist"], tmp_path / "mnist"))
        assert cells.run([CELL], BASE, tmp_path, tmp_path, 1, CPU, train_only=True) == 0
    assert torch.get_num_threads() == 1  # as `_begin` has it in a process of its own
    weights = [(folder / CELL.name / "checkpoint.safetensors").read_bytes() for folder in (runs, tmp_path)]
    assert weights[0] == weights[1]


def test_without_anything_saved_or_with_a_cell_that_is_none_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _benchmark(tmp_path) == 78
    assert "run without --tables-only first" in capsys.readouterr().err
    for option, value, there in (
        ("--beta", "0.123", "0.01, 0.05"),
        ("--dataset", "mnsit", "arrhythmia, mnist"),
        ("--encoder", "gru", "tcn, cnn, lstm"),
        ("--split", "bybeat", "by-beat, by-image, by-time, inter-patient"),
    ):
        assert _benchmark(tmp_path, option, value) == 78
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"{option} {value}: must be of {there}" in said
    assert _benchmark(tmp_path, "--encoder", "lstm") == 78  # of images there is one network
    assert "all that the options ask for together" in capsys.readouterr().err
    for jobs in ("0", "-1", "many", "1.5"):
        assert _benchmark(tmp_path, f"--jobs={jobs}") == 78
        assert f"--jobs {jobs}: must be auto, or a whole number above 0" in capsys.readouterr().err


def _margin(name: str, rows: list[Row]) -> float:
    (claim,) = (one for one in claims.CLAIMS if one.claim == name)
    ((_, margin),) = claim.cases(rows)
    return margin


def _over_alpha(distance: float, nse: float, between: float) -> tuple[float, ...]:
    return tuple({0.0: distance, 1.0: nse}.get(alpha, between) for alpha in ALPHAS)


def test_the_margin_of_a_claim_is_what_its_rule_says() -> None:
    whole = _over_alpha(distance=0.85, nse=0.8, between=0.9)
    rows = [_row(auroc=whole), *_rows({"N": 0.7}, placing=LATENT)]
    rows += [_row(auroc=whole, nse=THROUGH_MEAN, placing=way, fixed=s) for way, s in ((JOINT, 0.88), (OURS, 0.82))]
    expected = {
        "t-SNE is better than latent distance": 0.85 - 0.7,
        claims.IMPROVES: 0.9 - 0.8,
        f"{claims.IMPROVES}; nothing chosen, joint map (ours)": 0.88 - 0.8,
        f"{claims.IMPROVES}; nothing chosen, streaming (ours)": 0.82 - 0.8,
        claims.COMPLEMENT: 0.9 - 0.85,
        f"{claims.COMPLEMENT}; nothing chosen, joint map (ours)": 0.88 - 0.85,
        f"{claims.COMPLEMENT}; nothing chosen, streaming (ours)": 0.82 - 0.85,
    }
    for name, above in expected.items():
        assert _margin(name, rows) == pytest.approx(above - claims.ABOVE), name


def test_encoders_are_compared_by_the_seed_that_all_of_them_have() -> None:
    rows = _rows(FIVE) + _rows(dict.fromkeys("NSVFQ", 0.6), seed=1)
    rows += [one for network in ("cnn", "lstm") for one in _rows(dict.fromkeys("NSVFQ", 0.8), network=network)]
    assert _verdict("TCN is above CNN and LSTM in all five classes", rows) == claims.HOLDS


def test_a_class_that_alpha_0_is_best_for_already_says_nothing_of_a_lower_alpha() -> None:
    rows = [_row(auroc=_over_alpha(0.9, 0.5, 0.6)), _row(auroc=_over_alpha(0.9, 0.5, 0.6), distance=PER_PAIR)]
    assert _verdict("normalised distance lowers the best alpha (1/n^2)", rows) == claims.UNTESTED


def test_of_equal_figures_the_smallest_beta_and_the_largest_alpha_are_chosen() -> None:
    rows = _rows({"N": 0.8}, beta=1.0) + _rows({"N": 0.8})
    assert choices.best_of(rows) == (0.8, 0.01, ALPHAS[-1])


def test_rows_of_another_split_network_or_share_have_no_part_in_the_papers_figures() -> None:
    others = [{"split": "by-time"}, {"split": "inter-patient"}, {"network": "cnn"}, {"share": 0.5}]
    rows = [_row(), _row(split="by-image", network="table 3"), *(_row(**other) for other in others)]
    assert choices.of_paper(rows) == rows[:2]


def test_with_nothing_chosen_beta_is_the_fixed_one_whatever_else_was_computed() -> None:
    assert choices.fixed([_row(fixed=0.8), _row(fixed=0.6, seed=1), _row(fixed=0.1, beta=1.0)]) == pytest.approx(0.7)


def test_a_reconstruction_through_a_sampled_z_is_worse_than_through_the_mean(saved: Cell) -> None:
    for nse in (saved.nse, saved.held_out_nse):
        assert nse[SAMPLED].mean() > 1.01 * nse[THROUGH_MEAN].mean()


def test_each_row_is_of_its_own_placing_k_and_nse(tmp_path: Path) -> None:
    rng, abnormal = np.random.default_rng(0), np.arange(200) % 4 == 0
    both = (SAMPLED, THROUGH_MEAN)
    nse, held_out = ({name: rng.gamma(2, size=200) for name in both} for _ in range(2))
    ways = {
        name: map_ways.Placed(rng.gamma(2, size=(200, 3)), 9 * rng.random((200, 3)), np.eye(2), np.eye(2))
        for name in (JOINT, OURS)
    }
    none = np.zeros(0)
    cell = Cell(CELL, nse, held_out, abnormal, none, ways, Examples(*[none] * len(Examples._fields)))
    open_run(tmp_path, BASE["mnist"])
    rows = results.rows(cell, tmp_path)
    assert {(row.test, row.abnormal) for row in rows} == {(200, 50)}
    for placing, (column, k), way in product((JOINT, OURS), enumerate(map_ways.K), both):
        (row,) = choices.at(rows, placing, way, k)
        d, scale = ways[placing].test[:, column], ways[placing].scale[:, column]
        middles = [np.median(held_out[way]), np.median(scale)]
        spans = [np.quantile(one, 0.75) - middle for one, middle in zip((held_out[way], scale), middles, strict=True)]
        s = (nse[way] - middles[0]) / spans[0] + (d - middles[1]) / spans[1]
        expected = [auroc(one, abnormal)[0] for one in (d, nse[way], s)]
        assert [row.auroc[ALPHAS.index(0.0)], row.auroc[ALPHAS.index(1.0)], row.fixed] == pytest.approx(
            expected, abs=1e-4
        )


def test_a_cell_made_again_replaces_its_rows_from_before_and_no_other_cells() -> None:
    others = [
        _row(share=0.5),
        _row(seed=1),
        _row(beta=1.0),
        _row(split="by-time"),
        _row(network="cnn"),
        _row(anomaly="S"),
    ]
    before = [_row(machine="before"), _row(machine="before", k=3), *others]
    assert results.joined([_row(machine="now")], before, []) == [_row(machine="now"), *others]
