"""MNIST and Fashion-MNIST: IDX files to a data set, and its split."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from ecgwatch.beats import ImageContract
from ecgwatch.errors import DataError
from tests import idx_files
from training.datasets import images
from training.datasets.dataset import Dataset
from training.datasets.download import ensure


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data") / "mnist"
    idx_files.write(made)
    return made


@pytest.fixture(scope="module")
def data(folder: Path) -> Dataset:
    return images.load(folder, "mnist", ImageContract())


def test_an_image_is_its_pixels_row_by_row_from_0_to_1(folder: Path, data: Dataset):
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as opened:
        last = np.frombuffer(opened.read()[-784:], np.uint8)
    assert data.x.dtype == np.float32 and data.x.shape == (400, 784)
    assert data.x.min() >= 0 and data.x.max() <= 1
    np.testing.assert_allclose(data.x[-1] * 255, last, rtol=1e-6)


def test_every_image_has_its_class_its_file_and_its_place_there(data: Dataset):
    assert data.classes[:12].tolist() == list("012345678901")
    assert [(str(data.records[row]), int(data.samples[row])) for row in (0, 199, 200)] == [
        ("train", 0),
        ("train", 199),
        ("t10k", 0),
    ]
    assert data.clean.all() and data.hours == {}
    assert list(data.kinds) == list("0123456789")


def test_normal_images_of_the_training_file_train_or_calibrate_and_the_test_file_is_all_test(data: Dataset):
    made = images.split(data, tuple("012456789"))
    assert made.name == "by-image"
    assert (
        sorted([*made.train, *made.calibration])
        == np.flatnonzero((data.records == "train") & (data.classes != "3")).tolist()
    )
    assert made.test.tolist() == list(range(200, 400))


def test_a_tenth_calibrates_and_the_draw_is_always_the_same(data: Dataset):
    one, two = (images.split(data, tuple("012456789")) for _ in range(2))
    assert 5 <= len(one.calibration) <= 35  # of 180
    assert np.array_equal(one.calibration, two.calibration)


def test_an_unknown_class_is_refused(data: Dataset):
    with pytest.raises(DataError, match=r"some of 0, 1, .*; got N"):
        images.split(data, ["N"])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0",
        b"\0\0\x08\x01\0\0\0\x05abcd",
        b"\0\0\x08\x01\xff\xff\xff\xff",
    ],
    ids=["empty", "no sizes", "floats", "too short", "negative size"],
)
def test_a_file_that_is_no_idx_file_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "x.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"x.gz: no whole IDX file of bytes"):
        images.read_idx(tmp_path / "x.gz")


def test_a_file_that_is_not_packed_or_cut_is_named(tmp_path: Path):
    whole = idx_files.packed(np.zeros(50))
    damaged = b"\xff" * (len(whole) - 10)
    for content in (gzip.decompress(whole), whole[:-9], whole[:10] + damaged, b""):
        (tmp_path / "x.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"x.gz: no whole IDX file of bytes"):
            images.read_idx(tmp_path / "x.gz")


def test_images_and_labels_that_do_not_belong_together_are_refused(tmp_path: Path):
    idx_files.write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(idx_files.packed(np.zeros(7)))
    with pytest.raises(DataError, match=r"the t10k files hold \[200, 28, 28\] pixels and \[7\] labels"):
        images.load(tmp_path, "mnist", ImageContract())


def test_a_label_that_is_no_class_is_refused(tmp_path: Path):
    idx_files.write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx_files.packed(np.full(200, 10)))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.gz: a label is none of 0 to 9"):
        images.load(tmp_path, "mnist", ImageContract())


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_absent_files_offline_are_one_line_with_files_folder_and_setting(tmp_path: Path, name: str):
    with pytest.raises(DataError) as caught:
        ensure(tmp_path / name, images.RELEASES[name], offline=True)
    text = str(caught.value)
    assert "\n" not in text
    for part in ("4 of", "train-images-idx3-ubyte.gz", str(tmp_path / name), f"holds {name}/", "--data"):
        assert part in text
    assert text.endswith("with these files")  # nothing else is taken in their place


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_files_of_another_content_are_refused_by_name(folder: Path, name: str):
    with pytest.raises(DataError, match=r"4 files in .* differ from the published edition .*: train-images-idx3"):
        ensure(folder, images.RELEASES[name])


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_files_verify_and_hold_70000_images(name: str):
    folder = Path(os.environ.get("ECGWATCH_DATA_DIRECTORY", "data")) / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set ECGWATCH_DATA_DIRECTORY to the folder that holds {name}/")
    data = images.load(ensure(folder, images.RELEASES[name], offline=True), name, ImageContract())
    counts = {part: np.bincount(data.classes[data.records == part].astype(int)).tolist() for part in images.PARTS}
    assert {part: sum(of_part) for part, of_part in counts.items()} == {"train": 60_000, "t10k": 10_000}
    assert data.x.any(axis=1).all()  # eq. 3 divides by the energy of an image
    if name == "fashion-mnist":
        assert counts == {"train": [6000] * 10, "t10k": [1000] * 10}
    else:
        assert (counts["train"][3], counts["t10k"][3]) == (6131, 1010)
