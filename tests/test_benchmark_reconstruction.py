"""What the paper leaves open, varied: rows of reconstruction alone."""

from pathlib import Path

import pytest
import torch

from ecgwatch import cli
from tests import idx_files
from training.benchmark.reconstruction import Row
from training.benchmark.rows import read_csv
from training.datasets import images

torch.set_num_threads(1)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    idx_files.write(tmp_path / "mnist", of_part=300)
    monkeypatch.setitem(images.RELEASES, "mnist", idx_files.known(images.RELEASES["mnist"], tmp_path / "mnist"))
    return tmp_path


def _benchmark(data: Path, *options: str) -> int:
    given = ["benchmark", "reconstruction", "--dataset", "mnist", "--data", str(data), "--out", str(data / "rows.csv")]
    return cli.main([*given, "--device", "cpu", *options])


def test_an_absent_class_is_told_once_the_others_can_be_drawn_and_no_row_is_made_twice(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in (["epochs=1"], ["epochs=40"], ["epochs=1", "cooldown=1"], ["epochs=1", "latent=2"], ["epochs=40"]):
        assert _benchmark(data, "--anomaly", "9", "--set", *options) == 0
    rows = read_csv(data / "rows.csv", Row)
    found = [(row.anomaly, row.latent, row.epochs, row.cooldown) for row in rows]
    assert found == [("9", 2, 1, 0), ("9", 10, 1, 0), ("9", 10, 1, 1), ("9", 10, 40, 0)]
    _, untrained, _, trained = rows
    assert trained.sampled > 0.9 and trained.through_mean > 0.9 and trained.abnormal > trained.normal
    assert untrained.sampled < trained.sampled
    assert f"9: AUROC {trained.sampled:.4f} through a sampled z" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--anomaly", "12"], "12 is no class"),
        (["--anomaly", "1", "--set", "x=1"], "--set x=1"),
        (["--anomaly", "1", "--set", "initial=zero"], "must be torch or glorot"),
        (["--anomaly", "1", "--set", "references=9"], "--set references=9"),  # of the map, which is not made
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(
    data: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _benchmark(data, *options) == 78
    assert said in capsys.readouterr().err
