"""`ecgwatch train`, called as a function: its options, and one small run to the end."""

import argparse
import json

import numpy as np
import pytest

from ecgwatch import bundle as bundles
from ecgwatch import cli
from ecgwatch.errors import ConfigError
from training import cli as training_cli
from training.datasets import heartbeat_csv
from training.parameters import Parameters


def parameters(*argv: str) -> Parameters:
    parser = argparse.ArgumentParser()
    training_cli.add_arguments(parser)
    return training_cli.parameters(parser.parse_args(["--dataset", "arrhythmia", *argv]))


def test_without_options_the_defaults_hold():
    assert parameters() == Parameters()


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
