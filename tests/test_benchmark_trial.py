"""The trial that finds how a GPU is used, run on the CPU: what it measures, chooses and keeps."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from training import train
from training.benchmark.paper import trial
from training.benchmark.paper.trial import Plan, Size
from training.models import make
from training.parameters import CLASSES, Parameters, defaults

CPU = torch.device("cpu")
NORB = replace(defaults("small-norb"), batch=4)  # the one data set of which training takes crops
TINY = Size(steps=3, batches=(4, 8))


def _known(rates: dict[int, float]) -> trial.Climbed:
    """Climb over rates known beforehand; memory suffices for no more."""

    def rate(number: int) -> float:
        if number not in rates:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 8 GiB")
        return rates[number]

    return trial.climb((1, 2, 4, 8), rate)


@pytest.mark.parametrize(
    ("rates", "chosen", "said"),
    [
        ({1: 120, 2: 220, 4: 390, 8: 400}, 4, "steps/s of 1, 2, 4, 8 models at once: 120, 220, 390, 400"),
        ({1: 120, 2: 220, 4: 390, 8: 770}, 8, "steps/s of 1, 2, 4, 8 models at once: 120, 220, 390, 770"),
        ({1: 120, 2: 110, 4: 999}, 1, "steps/s of 1, 2 models at once: 120, 110"),
        ({1: 120, 2: 220}, 2, "steps/s of 1, 2 models at once: 120, 220; 4 failed: CUDA out of memory"),
        ({}, 1, "1 failed: CUDA out of memory"),
    ],
)
def test_the_last_number_that_gained_a_tenth_and_had_memory_is_chosen(
    rates: dict[int, float], chosen: int, said: str
) -> None:
    climbed = _known(rates)
    assert (climbed.chosen, trial.said(climbed)) == (chosen, said)


def test_what_was_measured_is_said_once_and_kept_for_the_next_piece(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs" / "device.json"
    found = trial.plan(NORB, CPU, file, 2, size=TINY)
    assert found.training in (1, 2) and found.batch in TINY.batches
    assert found.measured.startswith("steps/s of 1, 2 models at once: ")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"device: {train.machine(CPU)}: {found.measured} -> {found.training} at once; ")
    start = time.monotonic()
    assert trial.plan(NORB, CPU, file, 2, end=start, size=TINY) == found
    assert capsys.readouterr().out == "" and time.monotonic() - start < 1
    file.write_text(json.dumps({"another": {"training": 8}}))
    assert trial.plan(NORB, CPU, file, 1, end=start, size=TINY) == Plan(1, measured="1 failed: TimeoutError")
    assert list(json.loads(file.read_text())) == ["another"]  # what the budget cut short is not kept


def test_a_device_that_processes_share_through_mps_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not trial.has_mps(torch.device("cuda"))
    (tmp_path / "control").touch()
    assert trial.has_mps(torch.device("cuda")) and not trial.has_mps(CPU)


def test_memory_that_does_not_suffice_in_a_process_ends_the_trial_with_what_worked_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "device.json"
    found = trial.plan(NORB, CPU, file, 1, size=replace(TINY, steps=10**12))
    assert found.training == 1 and found.measured.startswith("1 failed: [enforce fail at alloc_cpu")
    assert not file.exists()
    assert "-> 1 at once" in capsys.readouterr().out


@pytest.mark.parametrize("dataset", CLASSES)
def test_made_up_data_have_the_length_that_the_model_reads(dataset: str) -> None:
    parameters = Parameters() if dataset == "arrhythmia" else defaults(dataset)
    given, seen = trial.lengths(dataset)
    x = train.random_crops(torch.rand(2, given), seen)
    assert make(parameters, seen)(x)[0].shape == x.shape
