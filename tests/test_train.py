"""The training loop and its checkpoints."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ecgwatch.errors import ConfigError, DataError
from training.parameters import Parameters, defaults
from training.run_folder import open_run, versions
from training.train import checkpoint_losses, checkpoint_machines, device, fit, machine, random_crops

torch.set_num_threads(1)
PARAMETERS = Parameters(epochs=2, cooldown=1, batch=20)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    t = np.linspace(0, 1, 187)
    rng = np.random.default_rng(0)
    return np.stack([np.exp(-((t - 0.2 - 0.1 * u) ** 2) / 0.01) for u in rng.random(80)]).astype(np.float32)


def _weights(x: np.ndarray, folder: Path, **interruption: int) -> dict[str, torch.Tensor]:
    open_run(folder, PARAMETERS)
    return fit(x, x[:10], PARAMETERS, folder, torch.device("cpu"), **interruption).state_dict()


def test_a_run_interrupted_and_resumed_ends_with_the_same_weights(x: np.ndarray, tmp_path: Path) -> None:
    whole = _weights(x, tmp_path / "whole")
    after_one = _weights(x, tmp_path / "parts", stop_after=1)
    resumed = _weights(x, tmp_path / "parts")
    assert any(not torch.equal(after_one[name], whole[name]) for name in whole)
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name


@pytest.mark.parametrize(
    ("changed", "given", "seen"),
    [
        ({"dataset": "mnist"}, 784, 784),
        ({"dataset": "cifar-10"}, 3072, 3072),
        ({"dataset": "small-norb"}, 48 * 48, 1024),
        ({"encoder": "cnn"}, 187, 187),
        ({"encoder": "lstm", "precision": "bfloat16"}, 187, 187),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else "",
)
def test_a_run_of_any_model_interrupted_and_resumed_ends_with_the_same_weights(
    tmp_path: Path, changed: dict[str, str], given: int, seen: int
) -> None:
    x = np.random.default_rng(0).random((60, given), np.float32)
    watched = np.random.default_rng(1).random((10, seen), np.float32)
    parameters = replace(PARAMETERS, **changed)
    ends = {}
    for name, stops in (("whole", (None,)), ("parts", (1, None))):
        open_run(tmp_path / name, parameters)
        for stop in stops:
            model = fit(x, watched, parameters, tmp_path / name, torch.device("cpu"), stop_after=stop)
        ends[name] = model.state_dict()
    for name, weight in ends["whole"].items():
        assert torch.equal(weight, ends["parts"][name]), name


def test_a_checkpoint_of_before_is_continued(x: np.ndarray, tmp_path: Path) -> None:
    whole = _weights(x, tmp_path / "whole")
    _weights(x, tmp_path / "parts", stop_after=1)
    file = tmp_path / "parts" / "checkpoint.safetensors"
    save_file(load_file(file), file, {"losses": json.dumps(checkpoint_losses(file))})
    assert checkpoint_machines(file) == []
    resumed = _weights(x, tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert checkpoint_machines(file) == [machine(torch.device("cpu"))]
    assert [row["epoch"] for row in checkpoint_losses(file)] == [1, 2, 3]


def test_a_checkpoint_that_was_half_written_is_not_taken(x: np.ndarray, tmp_path: Path) -> None:
    whole = _weights(x, tmp_path / "whole")
    _weights(x, tmp_path / "parts", stop_after=2)
    (tmp_path / "parts" / "checkpoint.part").write_bytes(b"half a checkpoint")
    resumed = _weights(x, tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_training_lowers_the_reconstruction_error(x: np.ndarray, tmp_path: Path) -> None:
    _weights(x, tmp_path)
    losses = checkpoint_losses(tmp_path / "checkpoint.safetensors")
    assert [row["epoch"] for row in losses] == [1, 2, 3]
    assert losses[-1]["reconstruction"] < 0.5 * losses[0]["reconstruction"]
    assert (tmp_path / "losses.csv").read_text().startswith("epoch,total,reconstruction,kl,capacity,watched_nse\n1,")


def test_training_in_bfloat16_learns_as_well_and_keeps_its_weights_in_float32(x: np.ndarray, tmp_path: Path) -> None:
    half = replace(PARAMETERS, precision="bfloat16")
    open_run(tmp_path / "half", half)
    weights = fit(x, x[:10], half, tmp_path / "half", torch.device("cpu")).state_dict()
    whole = _weights(x, tmp_path / "whole")
    assert all(weights[name].dtype == whole[name].dtype for name in whole)
    assert not all(torch.equal(weights[name], whole[name]) for name in whole)
    errors = [
        checkpoint_losses(tmp_path / name / "checkpoint.safetensors")[-1]["reconstruction"]
        for name in ("half", "whole")
    ]
    assert errors[0] == pytest.approx(errors[1], rel=0.2)


def test_another_seed_gives_other_weights(x: np.ndarray, tmp_path: Path) -> None:
    one = fit(x, x[:10], replace(PARAMETERS, epochs=1, cooldown=0), _folder(tmp_path / "a"), torch.device("cpu"))
    other = fit(
        x, x[:10], replace(PARAMETERS, epochs=1, cooldown=0, seed=7), _folder(tmp_path / "b"), torch.device("cpu")
    )
    assert not torch.equal(one.mean.weight, other.mean.weight)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_run_folder_of_other_parameters_is_refused_by_name(tmp_path: Path) -> None:
    open_run(tmp_path, PARAMETERS)
    with pytest.raises(ConfigError, match=r"beta 0\.01 there, 0\.5 now"):
        open_run(tmp_path, replace(PARAMETERS, beta=0.5))


def test_a_run_folder_from_before_a_parameter_came_is_continued_with_its_default(tmp_path: Path) -> None:
    open_run(tmp_path, PARAMETERS)
    file = tmp_path / "parameters.json"
    before = json.loads(file.read_text())
    del before["parameters"]["encoder"]
    file.write_text(json.dumps(before))
    open_run(tmp_path, PARAMETERS)
    with pytest.raises(ConfigError, match="encoder tcn there, lstm now"):
        open_run(tmp_path, replace(PARAMETERS, encoder="lstm"))


def test_a_crop_is_a_square_of_the_image_and_every_place_is_taken_by_seed() -> None:
    image = torch.arange(36.0)  # 6 x 6; crops of 4 x 4 begin at 3 x 3 places
    torch.manual_seed(0)
    crops = random_crops(image.repeat(200, 1), 16)
    corners = crops[:, 0].long()
    assert set(corners.tolist()) == {0, 1, 2, 6, 7, 8, 12, 13, 14}
    inside = (torch.arange(4)[:, None] * 6 + torch.arange(4)).flatten()
    assert torch.equal(crops, (corners[:, None] + inside).float())
    torch.manual_seed(0)
    assert torch.equal(random_crops(image.repeat(200, 1), 16), crops)
    assert not torch.equal(random_crops(image.repeat(200, 1), 16), crops)


def test_training_on_crops_reads_more_than_the_middle(tmp_path: Path) -> None:
    """Only a rim differs between two sets of images: were the middles alone seen, the weights would be equal."""
    x = np.random.default_rng(0).random((20, 48, 48), np.float32)
    rim = x.copy()
    rim[:, :8] = 0
    parameters = replace(defaults("small-norb"), epochs=1, batch=20)
    ends = []
    for number, images in enumerate((x, rim)):
        watched = images[:5, 8:40, 8:40].reshape(5, -1)
        ends.append(
            fit(images.reshape(20, -1), watched, parameters, _folder(tmp_path / str(number)), torch.device("cpu"))
        )
    assert not torch.equal(ends[0].mean.weight, ends[1].mean.weight)


def test_demanding_cuda_where_there_is_none_is_refused() -> None:
    if torch.cuda.is_available():
        assert device("cuda").type == "cuda"
    else:
        with pytest.raises(ConfigError, match="--device cpu"):
            device("cuda")


def test_fewer_than_a_batch_train_nothing_and_are_refused(x: np.ndarray, tmp_path: Path) -> None:
    few = PARAMETERS.batch - 1
    with pytest.raises(DataError, match="19 normal beats or images train here, and a batch is 20"):
        fit(x[:few], x[:10], PARAMETERS, _folder(tmp_path / "few"), torch.device("cpu"))
    fit(x[: few + 1], x[:10], PARAMETERS, _folder(tmp_path / "enough"), torch.device("cpu"))


def test_versions_name_what_is_installed_alone() -> None:
    found = versions()
    assert {"python", "torch", "numpy", "ecgwatch"} <= set(found)
    assert all(number[0].isdigit() for number in found.values())


def test_a_loss_that_is_no_number_ends_training(x: np.ndarray, tmp_path: Path) -> None:
    x = x.copy()
    x[3, 7] = np.nan
    with pytest.raises(DataError, match="the loss is no number after epoch 1 of 3"):
        fit(x, x[:10], PARAMETERS, _folder(tmp_path / "nan"), torch.device("cpu"))
    assert not (tmp_path / "nan" / "checkpoint.safetensors").exists()
