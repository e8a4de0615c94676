"""MNIST and Fashion-MNIST: the official IDX files, verified; and the split of one anomalous class, of all images.

LeCun, Bottou, Bengio, Haffner, Proc. IEEE 86 (1998); Xiao, Rasul, Vollgraf, arXiv:1708.07747 (2017; MIT licence). The
hashes are those of the unpacked files, since packing them again changes the others.
"""

import gzip
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from ecgwatch.beats import ImageContract
from ecgwatch.errors import DataError
from training.datasets.dataset import Dataset, Split, check_normal
from training.datasets.download import Release, unpacked_sha256
from training.parameters import CLASSES

PARTS = ("train", "t10k")
TESTS = ("t10k", "test")  # parts that test, here and in the other sets of images
CALIBRATION_SHARE = 0.1  # of the training file
RELEASES = {
    "mnist": Release(
        title="MNIST images",
        edition="the published edition",
        url="https://ossci-datasets.s3.amazonaws.com/mnist",
        folder="mnist",
        hashes={
            "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        digest=unpacked_sha256,
    ),
    "fashion-mnist": Release(
        title="Fashion-MNIST images",
        edition="the published edition",
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        folder="fashion-mnist",
        hashes={
            "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        digest=unpacked_sha256,
    ),
}


def load(folder: Path, dataset: str, contract: ImageContract) -> Dataset:
    """Read both parts; 'records' are the parts' names, samples the positions in the file, every image counts as clean.

    folder: holds the four files. Raises DataError naming a file that is none of its kind.
    """
    kinds = CLASSES[dataset]
    return assemble({part: _part(folder, part, contract, kinds) for part in PARTS}, kinds)


def assemble(
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    kinds: Mapping[str, str],
    note: str = "",
    uncropped: np.ndarray | None = None,
) -> Dataset:
    """Join parts, each of pixels float32[n, length] and labels int[n], the positions of their classes in `kinds`."""
    x, labels = zip(*parts.values(), strict=True)
    counts = [len(part) for part in x]
    return Dataset(
        np.concatenate(x),
        np.array(list(kinds))[np.concatenate(labels)],
        np.repeat(list(parts), counts),
        np.concatenate([np.arange(count) for count in counts]),
        np.ones(sum(counts), bool),
        {},
        kinds,
        note,
        uncropped,
    )


def _part(folder: Path, part: str, contract: ImageContract, kinds: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
    pixels = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    if pixels.shape != (len(labels), contract.height, contract.width) or labels.ndim != 1:
        raise DataError(
            f"{folder}: the {part} files hold {list(pixels.shape)} pixels and {list(labels.shape)} labels; "
            f"images are {contract.height} x {contract.width}"
        )
    if (labels >= len(kinds)).any():
        raise DataError(f"{folder / part}-labels-idx1-ubyte.gz: a label is none of 0 to {len(kinds) - 1}")
    return pixels.reshape(len(pixels), contract.length) / np.float32(255), labels


def read_idx(file: Path) -> np.ndarray:
    """Return the array of a packed IDX file of bytes, uint8.

    The format: two zeros, the type (8: bytes), the number of dimensions, the size of each as a big-endian uint32, then
    the values. Raises DataError naming a file that is of another kind.
    """
    try:
        with gzip.open(file) as opened:
            data = opened.read()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        data = b""
    first = 4 + 4 * int.from_bytes(data[3:4])  # of the values
    if data[:3] == b"\0\0\x08" and len(data) >= first:
        shape = np.frombuffer(data[4:first], ">u4").tolist()
        if len(data) - first == math.prod(shape):
            return np.frombuffer(data, np.uint8, offset=first).reshape(shape)
    raise DataError(f"{file}: no whole IDX file of bytes")


def split(data: Dataset, normal: Sequence[str], seed: int = 0, together: int = 1) -> Split:
    """Assign the official test file to test, a tenth of the training file's normal images to calibration, the others to
    training.

    together: so many images, one after the other, are of one thing and stay together. Raises DataError for an unknown
    class.
    """
    check_normal(normal, data.kinds)
    tests = np.isin(data.records, TESTS)
    trains = np.isin(data.classes, list(normal)) & ~tests
    drawn = np.random.default_rng(seed).random(len(data) // together).repeat(together) < CALIBRATION_SHARE
    return Split("by-image", tuple(normal), *(np.flatnonzero(p) for p in (trains & ~drawn, trains & drawn, tests)))
