"""Small-NORB: the published binary matrices, verified, as the paper sees them.

LeCun, Huang, Bottou, Learning methods for generic object recognition with invariance to pose and lighting, CVPR 2004:
24,300 + 24,300 pairs of 96 x 96 grey pixels, of 50 toys of 5 categories; other toys in the test. The paper (appendix G)
resizes to 48 x 48, trains on random crops of 32 x 32 and tests on the middle; its networks see one channel. What it
leaves open: both images of a pair count here, each by itself, and resizing takes the mean of 2 x 2 pixels.

The hashes are those of the packed files that tensorflow-datasets has; they could not be compared with the publisher
here. The published -info files (toy, elevation, azimuth, lighting) are not needed.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from ecgwatch.beats import ImageContract
from ecgwatch.errors import DataError
from training.datasets.dataset import Dataset
from training.datasets.download import Release, ensure
from training.datasets.images import assemble
from training.parameters import CLASSES

CONTRACT = ImageContract(height=32, width=32)
TRAIN, TEST = "smallnorb-5x46789x9x18x6x2x96x96-training", "smallnorb-5x01235x9x18x6x2x96x96-testing"
RELEASE = Release(
    title="Small-NORB images",
    edition="the published edition",
    url="https://cs.nyu.edu/~ylclab/data/norb-v1.0-small",
    folder="small-norb",
    hashes={
        f"{TRAIN}-dat.mat.gz": "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
        f"{TRAIN}-cat.mat.gz": "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa",
        f"{TEST}-dat.mat.gz": "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
        f"{TEST}-cat.mat.gz": "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff",
    },
)
NOTE = "images of 48 x 48: random crops of 32 x 32 train, the middle is what is scored; both images of a pair count"
SIDE = 96
CAMERAS = 2  # images of a pair
# by magic number; a packed matrix (0x1E3D4C52) is in none of the published files
TYPES = {0x1E3D4C51: "<f4", 0x1E3D4C53: "<f8", 0x1E3D4C54: "<i4", 0x1E3D4C55: "<u1", 0x1E3D4C56: "<i2"}


def load(folder: Path, offline: bool = False) -> Dataset:
    """Read Small-NORB, downloading what is missing; the two images of a pair follow each other.

    Raises DataError naming files that are missing, differ, or are none of their kind.
    """
    ensure(folder, RELEASE, offline=offline)
    parts = {name: _part(folder, stem) for name, stem in (("train", TRAIN), ("test", TEST))}
    resized = np.concatenate([images for images, _ in parts.values()])
    middle = {name: (centre(images) / np.float32(255), labels) for name, (images, labels) in parts.items()}
    return assemble(middle, CLASSES["small-norb"], NOTE, resized.reshape(len(resized), -1))


def _part(folder: Path, stem: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images, uint8[n, 48, 48], and labels, int32[n]."""
    pixels, labels = read_matrix(folder / f"{stem}-dat.mat.gz"), read_matrix(folder / f"{stem}-cat.mat.gz")
    if pixels.dtype != np.uint8 or labels.dtype != np.int32 or pixels.shape != (*labels.shape, CAMERAS, SIDE, SIDE):
        raise DataError(
            f"{folder}: {stem} holds {list(pixels.shape)} pixels and {list(labels.shape)} labels; "
            f"a label goes with a pair of {SIDE} x {SIDE}"
        )
    if not np.isin(labels, range(len(CLASSES["small-norb"]))).all():
        raise DataError(f"{folder / stem}-cat.mat.gz: a label is none of 0 to 4")
    return halve(pixels.reshape(-1, SIDE, SIDE)), labels.repeat(CAMERAS)


def halve(images: np.ndarray) -> np.ndarray:
    """Resize uint8[n, side, side] to half the side: the mean of 2 x 2 pixels, rounded."""
    n, side, _ = images.shape
    blocks = images.reshape(n, side // 2, 2, side // 2, 2)
    return ((blocks.sum(axis=(2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)


def centre(images: np.ndarray) -> np.ndarray:
    """Return the middle of square images, [n, side, side] -> [n, length of the contract]."""
    cut = CONTRACT.height
    first = (images.shape[1] - cut) // 2
    return images[:, first : first + cut, first : first + cut].reshape(len(images), CONTRACT.length)


def read_matrix(file: Path) -> np.ndarray:
    """Return the array of a packed binary matrix.

    The format: type (a magic number), number of dimensions, the size of each and of three at least, all as
    little-endian int32, then the values. Raises DataError naming a file that is of another kind.
    """
    try:
        with gzip.open(file) as opened:
            data = opened.read()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        data = b""
    if len(data) >= 20:
        magic, dimensions = np.frombuffer(data[:8], "<i4").tolist()
        first = 8 + 4 * max(3, dimensions)  # of the values
        if magic in TYPES and 1 <= dimensions <= 4 and len(data) >= first:
            shape = np.frombuffer(data[8 : 8 + 4 * dimensions], "<i4").tolist()
            kind = np.dtype(TYPES[magic])
            if min(shape) >= 0 and len(data) - first == kind.itemsize * math.prod(shape):
                return np.frombuffer(data, kind, offset=first).reshape(shape)
    raise DataError(f"{file}: no whole binary matrix")
