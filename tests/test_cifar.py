"""CIFAR-10: the publisher's archive or its files, and a copy that is known to differ."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecgwatch.errors import DataError
from tests import cifar_files
from training.datasets import cifar, images
from training.datasets.download import sha256


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small files, as if they were what was published."""
    monkeypatch.setattr(cifar, "HASHES", cifar_files.write(tmp_path / "cifar-10" / cifar.UNPACKED))
    return tmp_path / "cifar-10" / cifar.UNPACKED


def test_an_image_is_its_red_green_and_blue_plane_from_0_to_1(unpacked: Path, capsys: pytest.CaptureFixture[str]):
    data = cifar.load(unpacked.parent, offline=True)
    last = np.frombuffer((unpacked / cifar.TEST).read_bytes()[-3072:], np.uint8)
    assert data.x.dtype == np.float32 and data.x.shape == (120, 3072)
    np.testing.assert_allclose(data.x[-1] * 255, last, rtol=1e-6)
    red, green, blue = data.x[1].reshape(3, 32, 32)  # an automobile: a green square, from row 2
    assert green[2:10, 4:20].min() > 0.7 > 0.3 > max(red.max(), blue.max(), green[10:].max())
    assert data.note == "" and capsys.readouterr().err == ""


def test_five_files_train_in_their_order_and_the_sixth_tests(unpacked: Path):
    data = cifar.load(unpacked.parent, offline=True)
    assert data.classes[:12].tolist() == list("012345678901")
    assert [str(data.records[row]) for row in (0, 99, 100, 119)] == ["train", "train", "test", "test"]
    assert data.samples[[0, 99, 100]].tolist() == [0, 99, 0]
    made = images.split(data, tuple("0123456789".replace("3", "")))
    assert made.test.tolist() == list(range(100, 120))
    assert sorted([*made.train, *made.calibration]) == [row for row in range(100) if row % 10 != 3]


def test_the_archive_holds_the_same_images_and_is_not_unpacked(unpacked: Path, monkeypatch: pytest.MonkeyPatch):
    expected = cifar.load(unpacked.parent, offline=True)
    folder = unpacked.parent / "packed"
    folder.mkdir()
    release = replace(cifar.RELEASE, hashes=cifar_files.pack(unpacked, folder / cifar.ARCHIVE))
    monkeypatch.setattr(cifar, "RELEASE", release)
    found = cifar.load(folder, offline=True)
    assert np.array_equal(found.x, expected.x) and np.array_equal(found.classes, expected.classes)
    assert [file.name for file in folder.iterdir()] == [cifar.ARCHIVE]


def test_where_one_of_the_unpacked_files_is_missing_it_is_named(unpacked: Path):
    (unpacked / cifar.TEST).unlink()
    with pytest.raises(DataError, match=f"{cifar.TEST} is missing; the other files are there"):
        cifar.load(unpacked.parent)  # nor is an archive fetched


def test_without_files_the_error_is_one_line_with_archive_files_folder_publisher_and_setting(tmp_path: Path):
    with pytest.raises(DataError) as caught:
        cifar.load(tmp_path / "cifar-10", offline=True)
    text = str(caught.value)
    assert "\n" not in text
    for part in ("cifar-10-binary.tar.gz", str(tmp_path / "cifar-10"), "www.cs.toronto.edu", "holds cifar-10/"):
        assert part in text
    files = "data_batch_1.bin to data_batch_5.bin, test_batch.bin"
    assert f"or with the archive's six files unpacked in cifar-10-batches-bin/ there ({files})" in text


def test_another_archive_is_refused_by_name(tmp_path: Path):
    (tmp_path / cifar.ARCHIVE).write_bytes(b"another")
    with pytest.raises(DataError, match=r"1 files in .* differ from the published edition .*: cifar-10-binary.tar.gz"):
        cifar.load(tmp_path, offline=True)


def test_a_file_that_differs_is_refused_by_name(unpacked: Path):
    data = bytearray((unpacked / "data_batch_2.bin").read_bytes())
    data[100] ^= 1
    (unpacked / "data_batch_2.bin").write_bytes(data)
    with pytest.raises(DataError, match=r"1 files in .* differ from .*: data_batch_2.bin; remove them"):
        cifar.load(unpacked.parent, offline=True)


def test_the_inexact_copy_is_taken_and_said_to_be_one(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(cifar, "INEXACT", cifar.HASHES)
    monkeypatch.setattr(cifar, "HASHES", dict.fromkeys(cifar.HASHES, ""))
    data = cifar.load(unpacked.parent, offline=True)
    assert len(data) == 120
    assert "not the publisher's to the byte" in data.note and "99.8 % are exact" in data.note
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and data.note in error
    (unpacked / "data_batch_1.bin").write_bytes(b"another")
    with pytest.raises(DataError, match=r"1 files in .* differ"):
        cifar.load(unpacked.parent, offline=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "data_batch_5.bin has 0 bytes"), (bytes(3074), "has 3074 bytes"), (b"\x0a" + bytes(3072), "0 to 9")],
    ids=["empty", "too long", "no class"],
)
def test_a_file_that_is_no_whole_file_of_records_is_named(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
):
    (unpacked / "data_batch_5.bin").write_bytes(content)
    monkeypatch.setitem(cifar.HASHES, "data_batch_5.bin", sha256(unpacked / "data_batch_5.bin"))
    with pytest.raises(DataError, match=said):
        cifar.load(unpacked.parent, offline=True)


@pytest.mark.data
def test_the_real_files_verify_and_hold_60000_images(tmp_path: Path):
    folder = Path(os.environ.get("ECGWATCH_DATA_DIRECTORY", "data")) / "cifar-10"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set ECGWATCH_DATA_DIRECTORY to the folder that holds cifar-10/")
    if (folder / "unpack.py").is_file():  # the inexact copy as it travels
        subprocess.run([sys.executable, folder / "unpack.py", tmp_path], check=True)
        folder = tmp_path
    data = cifar.load(folder, offline=True)
    assert data.note == (cifar.NOTE if folder == tmp_path else "")
    counts = {part: np.bincount(data.classes[data.records == part].astype(int)).tolist() for part in ("train", "test")}
    assert counts == {"train": [5000] * 10, "test": [1000] * 10}
    assert data.x.any(axis=1).all()  # eq. 3 divides by the energy of an image
