"""Small-NORB: binary matrices to a data set."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from ecgwatch.errors import DataError
from tests import norb_files
from training.datasets import images, norb
from training.datasets.dataset import Dataset
from training.datasets.download import sha256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "small-norb"


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    release = norb_files.write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norb, "RELEASE", release)
        return norb.load(folder, offline=True)


def test_both_images_of_a_pair_are_images_of_its_class(data: Dataset):
    assert data.x.dtype == np.float32 and data.x.shape == (80, 1024)
    assert data.classes[:6].tolist() == list("001122")
    assert [str(data.records[row]) for row in (0, 39, 40, 79)] == ["train", "train", "test", "test"]
    assert data.kinds == {"0": "animal", "1": "human", "2": "airplane", "3": "truck", "4": "car"}
    bright, dark = (data.x[row].max() for row in (0, 1))
    assert bright > dark  # the second camera's square is darker


def test_what_is_scored_is_the_middle_of_the_image_at_half_its_size(folder: Path, data: Dataset):
    pixels = norb.read_matrix(folder / f"{norb.TEST}-dat.mat.gz")[-1, 1].astype(float)
    half = (pixels[0::2, 0::2] + pixels[0::2, 1::2] + pixels[1::2, 0::2] + pixels[1::2, 1::2]) / 4
    np.testing.assert_allclose(data.x[-1].reshape(32, 32) * 255, half[8:40, 8:40], atol=0.51)
    assert data.uncropped is not None
    np.testing.assert_allclose(data.uncropped[-1].reshape(48, 48), half, atol=0.51)


def test_what_trains_is_the_whole_image_from_0_to_1(data: Dataset):
    found = data.training(np.array([3, 5]))
    assert found.dtype == np.float32 and found.shape == (2, 2304)
    middle = found.reshape(2, 48, 48)[:, 8:40, 8:40].reshape(2, 1024)
    assert np.array_equal(middle, data.x[[3, 5]])


def test_the_test_toys_test_and_a_tenth_of_the_others_calibrates(data: Dataset):
    made = images.split(data, tuple("0134"))
    assert made.test.tolist() == list(range(40, 80))
    assert sorted([*made.train, *made.calibration]) == np.flatnonzero(data.classes[:40] != "2").tolist()


def test_both_images_of_a_pair_train_or_both_calibrate(data: Dataset):
    for seed in range(5):
        made = images.split(data, tuple("0134"), seed, together=norb.CAMERAS)
        assert {row // 2 for row in made.train.tolist()}.isdisjoint(row // 2 for row in made.calibration.tolist())


@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 2, 5), (2, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("kind", ["<u1", "<i4"])
def test_a_matrix_comes_back_as_it_was_written(tmp_path: Path, shape: tuple[int, ...], kind: str):
    made = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    (tmp_path / "x.gz").write_bytes(norb_files.packed(made))
    found = norb.read_matrix(tmp_path / "x.gz")
    assert found.dtype == made.dtype and np.array_equal(found, made)


WHOLE = gzip.decompress(norb_files.packed(np.arange(6, dtype="<i4")))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip",
        gzip.compress(WHOLE)[:-9],
        gzip.compress(b""),
        gzip.compress(WHOLE[:-1]),
        gzip.compress(WHOLE + b"\0"),
        gzip.compress(b"\x52" + WHOLE[1:]),
        gzip.compress(WHOLE[:4] + b"\xff\xff\xff\xff" + WHOLE[8:]),
        gzip.compress(WHOLE[:8] + b"\xff\xff\xff\xff" + WHOLE[12:]),
    ],
    ids=["empty", "no gzip", "cut gzip", "nothing", "short", "long", "packed matrix", "no dimensions", "negative size"],
)
def test_a_file_that_is_no_binary_matrix_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"x.gz: no whole binary matrix"):
        norb.read_matrix(tmp_path / "x.gz")


@pytest.mark.parametrize(
    ("labels", "said"),
    [(np.zeros(7, "<i4"), r"\[20, 2, 96, 96\] pixels and \[7\] labels"), (np.full(20, 5, "<i4"), "none of 0 to 4")],
    ids=["too few", "no class"],
)
def test_labels_that_do_not_fit_the_images_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: np.ndarray, said: str
):
    release = norb_files.write(tmp_path)
    name = f"{norb.TRAIN}-cat.mat.gz"
    (tmp_path / name).write_bytes(norb_files.packed(labels))
    monkeypatch.setattr(norb, "RELEASE", release)
    monkeypatch.setitem(release.hashes, name, sha256(tmp_path / name))
    with pytest.raises(DataError, match=said):
        norb.load(tmp_path, offline=True)


def test_without_files_the_error_is_one_line_with_files_folder_publisher_and_setting(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        norb.load(tmp_path / "small-norb", offline=True)
    text = str(caught.value)
    assert "\n" not in text
    for part in ("4 of", f"{norb.TRAIN}-dat.mat.gz", str(tmp_path / "small-norb"), "cs.nyu.edu", "holds small-norb/"):
        assert part in text


def test_files_of_another_content_are_refused_by_name(folder: Path, data: Dataset):
    with pytest.raises(DataError, match=r"4 files in .* differ from the published edition .*-training-dat.mat.gz"):
        norb.load(folder, offline=True)
