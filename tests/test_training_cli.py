"""`ecgwatch train`, called as a function: its options, and one small run to the end."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ecgwatch import bundle as bundles
from ecgwatch import cli
from ecgwatch.beats import ImageContract
from ecgwatch.errors import ConfigError
from ecgwatch.scorer import Scorer
from tests import cifar_files, idx_files, norb_files
from training import cli as training_cli
from training.datasets import cifar, heartbeat_csv, images, norb
from training.parameters import BEDSIDE, Parameters


def parameters(*argv: str, dataset: str = "arrhythmia") -> Parameters:
    parser = argparse.ArgumentParser()
    training_cli.add_arguments(parser)
    return training_cli.parameters(parser.parse_args(["--dataset", dataset, *argv]))


def test_without_options_the_defaults_hold():
    assert parameters() == BEDSIDE
    assert parameters("--contract", "segment") == Parameters()


def test_fewer_references_than_virtual_peers_are_refused():
    with pytest.raises(ConfigError, match="--references must be above --peers"):
        parameters("--references", "40")


@pytest.mark.parametrize(
    ("argv", "normal"),
    [
        (["--anomaly", "Q"], ("N", "S", "V", "F")),
        (["--normal", "S", "N", "S"], ("N", "S")),
        (["--normal", "V"], ("V",)),
    ],
    ids=" ".join,
)
def test_the_classes_that_train_are_named_or_all_but_one(argv, normal):
    assert parameters(*argv).normal == normal


@pytest.mark.parametrize("name", ["beta", "latent", "epochs", "references"])
def test_a_value_that_must_be_above_0_is_refused_by_its_option(name):
    with pytest.raises(ConfigError, match=f"--{name} must be above 0"):
        parameters(f"--{name}", "0")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--seed", "-1"], "--seed must be 0 or above"),
        (["--cooldown", "-3"], "--cooldown must be 0 or above"),
        (["--capacity", "nan"], "--capacity must be 0 or above"),
        (["--denoise", "7"], "--denoise is a share"),
        (["--perplexity", "1"], "--perplexity must be above 1"),
        (["--perplexity", "nan"], "--perplexity must be above 1"),
        (["--rr-window", "centred"], "--rr-window is of the paper's segment"),
        (["--csv", "x", "--contract", "bedside"], "--csv is of the paper's segment"),
        (["--csv", "x", "--split", "inter-patient"], "--csv: .*; leave out --split inter-patient"),
        (["--csv", "x", "--rr-window", "past"], "--csv: .*; leave out --rr-window past"),
    ],
    ids=" ".join,
)
def test_what_is_out_of_range_or_would_be_ignored_is_refused_by_its_option(argv, said):
    with pytest.raises(ConfigError, match=said):
        parameters(*argv)


def test_a_run_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    idx_files.write(tmp_path / "mnist", of_part=150)
    known = idx_files.known(images.RELEASES["mnist"], tmp_path / "mnist")
    monkeypatch.setitem(images.RELEASES, "mnist", known)
    argv = ["train", "--dataset", "mnist", "--anomaly", "3", "--data", str(tmp_path)]
    assert cli.main([*argv, "--run", str(tmp_path / "file" / "run")]) == 66
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"ecgwatch: run folder {tmp_path / 'file' / 'run'}: Not a directory")


def test_images_have_the_epochs_and_the_map_of_the_paper():
    made = parameters("--anomaly", "3", dataset="mnist")
    assert (made.epochs, made.cooldown, made.batch, made.learning_rate, made.references) == (20, 0, 100, 1e-3, 5000)
    assert (made.latent, made.beta, made.capacity, made.split) == (10, 0.01, 25.0, "by-image")
    assert made.normal == tuple("012456789")
    assert parameters("--normal", "7", "1", "--epochs", "3", dataset="fashion-mnist").normal == ("1", "7")


@pytest.mark.parametrize(("dataset", "classes"), [("cifar-10", "0123456789"), ("small-norb", "01234")])
def test_larger_images_have_the_epochs_of_the_paper(dataset, classes):
    made = parameters("--anomaly", "3", dataset=dataset)
    assert (made.epochs, made.cooldown, made.batch, made.learning_rate, made.references) == (50, 0, 100, 1e-3, 5000)
    assert made.normal == tuple(classes.replace("3", ""))


def test_an_encoder_is_of_the_papers_segment():
    assert parameters("--split", "by-beat", "--encoder", "lstm").encoder == "lstm"
    assert parameters("--contract", "segment", "--encoder", "cnn").encoder == "cnn"
    assert parameters("--split", "by-beat").encoder == "tcn"
    with pytest.raises(ConfigError, match="--encoder is of the paper's segment: add --contract segment"):
        parameters("--encoder", "cnn")


@pytest.mark.parametrize(
    ("dataset", "argv", "said"),
    [
        ("mnist", [], "needs --anomaly CLASS"),
        ("mnist", ["--anomaly", "N"], "N is no class of mnist: they are 0, 1,"),
        ("arrhythmia", ["--normal", "N", "3"], "3 is no class of arrhythmia: they are N, S, V, F, Q"),
        ("mnist", ["--normal", *"0123456789"], "--normal names every class"),
        ("mnist", ["--anomaly", "3", "--split", "by-beat"], "--split is for --dataset arrhythmia, not for mnist"),
        ("fashion-mnist", ["--anomaly", "3", "--csv", "."], "--csv is for"),
        ("mnist", ["--anomaly", "3", "--rr-window", "past"], "--rr-window is for"),
        ("mnist", ["--anomaly", "3", "--keep-mixed-windows"], "--keep-mixed-windows is for"),
        ("cifar-10", ["--anomaly", "3", "--encoder", "cnn"], "--encoder is for --dataset arrhythmia, not for cifar-10"),
        ("small-norb", ["--anomaly", "5"], "5 is no class of small-norb: they are 0, 1, 2, 3, 4"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_the_data_set_is_refused_in_one_line(dataset, argv, said):
    with pytest.raises(ConfigError) as caught:
        parameters(*argv, dataset=dataset)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_absent_records_offline_end_in_one_line_and_exit_code_66(tmp_path, capsys):
    argv = ["train", "--dataset", "arrhythmia", "--offline", "--data", str(tmp_path), "--run", str(tmp_path / "run")]
    assert cli.main(argv) == 66
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / "mitdb") in error and "100.hea" in error and "ECGWATCH_DATA_DIRECTORY" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:.*published were:UserWarning")
def test_a_run_on_the_csv_files_ends_with_bundle_report_and_figures(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, beats in ((heartbeat_csv.TRAIN, 300), (heartbeat_csv.TEST, 100)):
        rows = np.zeros((beats, 188))
        rows[:, :120] = np.abs(np.sin(np.linspace(0, 6, 120) + rng.random((beats, 1))))
        rows[::5, :120] = rng.random((len(rows[::5]), 120))
        rows[::5, 187] = 2
        np.savetxt(tmp_path / name, rows, delimiter=",")
    run = tmp_path / "run"
    options = ["--epochs", "1", "--cooldown", "1", "--references", "100", "--perplexity", "5", "--device", "cpu"]
    argv = ["train", "--dataset", "arrhythmia", "--csv", str(tmp_path), *options, "--threads", "1", "--run", str(run)]
    assert cli.main(argv) == 0
    made = bundles.load(run / "bundle")
    assert made.manifest.training["parameters"]["normal"] == ["N"]
    assert made.manifest.protocol["split"] == "by-beat"
    assert "--csv FOLDER" in made.card
    auroc = json.loads((run / "figures.json").read_text())["auroc"]
    assert set(auroc) == {"all", "without class Q", "V against normal, without class Q"}  # the files name no records
    assert set(auroc["all"]) == {"nse", "distance", "score", "normal", "abnormal"}
    for name in (
        "losses.csv",
        "losses.png",
        "reconstructions.png",
        "map.png",
        "roc.png",
        "report.html",
        "parameters.json",
    ):
        assert (run / name).stat().st_size > 0
    assert f"report {run / 'report.html'}" in capsys.readouterr().out


@pytest.fixture(scope="module")
def image_run(tmp_path_factory) -> Path:
    """A run of one epoch on small IDX files, class 3 anomalous."""
    folder = tmp_path_factory.mktemp("images")
    idx_files.write(folder / "mnist", of_part=400)
    options = ["--epochs", "1", "--references", "100", "--perplexity", "5", "--device", "cpu", "--threads", "1"]
    places = ["--data", str(folder), "--run", str(folder / "run"), "--offline"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(images.RELEASES, "mnist", idx_files.known(images.RELEASES["mnist"], folder / "mnist"))
        assert cli.main(["train", "--dataset", "mnist", "--anomaly", "3", *options, *places]) == 0
    return folder / "run"


def test_a_run_on_images_ends_with_bundle_report_and_figures(image_run):
    made = bundles.load(image_run / "bundle")
    assert made.manifest.contract == ImageContract()
    assert made.manifest.thresholds == ()
    assert made.manifest.training["images"] + made.manifest.training["calibration_images"] == 360
    assert made.manifest.training["records"] == made.manifest.training["calibration_records"] == ["train"]
    figures = json.loads((image_run / "figures.json").read_text())
    assert list(figures) == ["auroc"]
    assert list(figures["auroc"]) == ["all", *(f"anomalous against {kind}" for kind in "012456789")]
    assert (figures["auroc"]["all"]["normal"], figures["auroc"]["all"]["abnormal"]) == (360, 40)
    for name in ("losses.png", "reconstructions.png", "map.png", "roc.png", "report.html", "parameters.json"):
        assert (image_run / name).stat().st_size > 0
    assert "--dataset mnist --normal 0 1 2 4 5 6 7 8 9 --latent 10" in made.card


@pytest.fixture(scope="module", params=["cifar-10", "small-norb"])
def larger_run(request, tmp_path_factory) -> Path:
    """A run of one epoch on small files, class 3 anomalous; of CIFAR-10 the copy that is not the publisher's."""
    folder = tmp_path_factory.mktemp(request.param)
    options = ["--epochs", "1", "--references", "80", "--perplexity", "5", "--device", "cpu", "--threads", "1"]
    places = ["--data", str(folder), "--run", str(folder / "run"), "--offline"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norb, "RELEASE", norb_files.write(folder / "small-norb", pairs=90))
        patch.setattr(cifar, "INEXACT", cifar_files.write(folder / "cifar-10" / cifar.UNPACKED, of_file=40))
        assert cli.main(["train", "--dataset", request.param, "--anomaly", "3", *options, *places]) == 0
    return folder / "run"


def test_a_run_on_larger_images_ends_with_bundle_report_and_figures(larger_run):
    made = bundles.load(larger_run / "bundle")
    of_cifar = made.manifest.training["parameters"]["dataset"] == "cifar-10"
    assert made.manifest.contract == ImageContract(32, 32, 3 if of_cifar else 1)
    auroc = json.loads((larger_run / "figures.json").read_text())["auroc"]
    assert list(auroc) == [
        "all",
        *(f"anomalous against {kind}" for kind in made.manifest.training["parameters"]["normal"]),
    ]
    said = "99.8 % are exact" if of_cifar else "random crops of 32 x 32 train"
    for text in (made.card, (larger_run / "report.html").read_text(), made.manifest.protocol["text"]):
        assert said in text.replace("\n", " ")
    assert (larger_run / "reconstructions.png").stat().st_size > 0


def test_arrays_of_images_are_scored_as_in_training(image_run):
    made = bundles.load(image_run / "bundle")
    data = images.load(image_run.parent / "mnist", "mnist", ImageContract())
    with np.load(image_run / "predictions.npz") as saved:
        expected = saved["score"]
    found = Scorer(made, "cpu").score(data.x[data.records == "t10k"]).score
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_bundle_of_images_can_be_shown_and_verified(image_run, capsys):
    for action in ("show", "verify"):
        assert cli.main(["bundle", action, str(image_run / "bundle")]) == 0
    assert '"kind": "image"' in capsys.readouterr().out


@pytest.mark.parametrize("command", ["score", "demo"])
def test_a_bundle_of_images_is_refused_where_heartbeats_are_scored(image_run, command, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ECGWATCH_MODEL_BUNDLE", str(image_run / "bundle"))
    assert cli.main([command, *([str(tmp_path / "233")] if command == "score" else [])]) == 65
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "scores images of 28 x 28 pixels, not heartbeats" in error


def test_a_worker_refuses_a_bundle_of_images_in_one_line(image_run):
    """In a process of its own, whose log it sets up; it asks for no Kafka before."""
    environment = {**os.environ, "ECGWATCH_MODEL_BUNDLE": str(image_run / "bundle"), "ECGWATCH_MODEL_PROVIDER": "cpu"}
    command = [sys.executable, "-m", "ecgwatch", "worker"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 65
    assert done.stderr.count("\n") == 1 and "scores images of 28 x 28 pixels, not heartbeats" in done.stderr


def test_altered_images_are_refused_by_name(tmp_path, capsys):
    idx_files.write(tmp_path / "mnist", of_part=20)
    argv = ["train", "--dataset", "mnist", "--anomaly", "3", "--data", str(tmp_path), "--run", str(tmp_path / "run")]
    assert cli.main(argv) == 66
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "train-images-idx3-ubyte.gz" in error
