"""CIFAR-10: the official binary files, verified, from the publisher's archive or unpacked.

Krizhevsky, Learning multiple layers of features from tiny images (2009). A record is a byte of class and 3,072 of
pixels: the red, the green and the blue plane, row by row. Nothing is unpickled, and the archive is read where it lies.

The archive's SHA-256 is the one that tensorflow-datasets has (its MD5, c32a1d4ab5d03f1284b67883e8d87530, stands on the
publisher's page); those of the unpacked files are torchvision-ruby's. None could be compared with the publisher here.
"""

import sys
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ecgwatch.beats import ImageContract
from ecgwatch.errors import DataError
from training.datasets.dataset import Dataset
from training.datasets.download import Release, ensure, sha256
from training.datasets.images import assemble
from training.parameters import CLASSES

CONTRACT = ImageContract(height=32, width=32, channels=3)
UNPACKED = "cifar-10-batches-bin"  # the archive's folder
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
RELEASE = Release(
    title="CIFAR-10 images",
    edition="the published edition",
    url="https://www.cs.toronto.edu/~kriz",
    folder="cifar-10",
    hashes={"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    instead=f"the archive's six files unpacked in {UNPACKED}/ there ({TRAIN[0]} to {TRAIN[-1]}, {TEST})",
)
ARCHIVE = next(iter(RELEASE.hashes))
HASHES = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    TEST: "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
# A copy in the same layout, for machines that cannot reach the publisher: known by its own hashes, and never unsaid.
INEXACT = {
    "data_batch_1.bin": "0def081c410489f98b3935c2d405fc7436d23377894a5d6a710ce1fad8082588",
    "data_batch_2.bin": "391e29575970440c9827ff440ffa1280ff77ca6eb244d5c1faba4cff7aa00dc5",
    "data_batch_3.bin": "121076ec0d3c7be3f1a6e3e94430ab5bb10bdb03bdf439c59ec721c0c800071e",
    "data_batch_4.bin": "ff251e0cad6f90227932ee79ff8eab028f9446e0bdebab02033743cff03b5147",
    "data_batch_5.bin": "fac1f56413e32aeecd42ad369e7f1955716e6e67e356724576492ef12a21a825",
    TEST: "0c52951616cb7790a30f696bc463082ec2726b2a31523e1fd8c4946e82ca57a4",
}
NOTE = (
    "CIFAR-10 from a copy that is not the publisher's to the byte: 111 of its 60,000 images (86 of training, 25 of the "
    "test; ships and horses) are decoded JPEGs, 99.8 % are exact"
)


def load(folder: Path, offline: bool = False) -> Dataset:
    """Read CIFAR-10, downloading the archive where neither it nor the unpacked files are in the folder.

    Files of the known inexact copy are taken, with a line on standard error and a note in the data set. Raises
    DataError naming what is missing, differs or is no whole file of records.
    """
    unpacked, note = folder / UNPACKED, ""
    lacking = [name for name in HASHES if not (unpacked / name).is_file()]
    if lacking and len(lacking) < len(HASHES):
        raise DataError(f"{unpacked}: {', '.join(lacking)} is missing; the other files are there")
    if not lacking:
        hashes = HASHES
        if sha256(unpacked / TEST) == INEXACT[TEST]:
            hashes, note = INEXACT, NOTE
            print(f"ecgwatch: {note}", file=sys.stderr)
        unpacked_release = replace(RELEASE, folder=f"{RELEASE.folder}/{UNPACKED}", hashes=hashes, instead="")
        ensure(unpacked, unpacked_release, offline=True)
        files = {name: (unpacked / name).read_bytes() for name in HASHES}
    else:
        files = _members(ensure(folder, RELEASE, offline=offline) / ARCHIVE)
    train, test = (_part(files, names, folder) for names in (TRAIN, (TEST,)))
    return assemble({"train": train, "test": test}, CLASSES["cifar-10"], note)


def _members(archive: Path) -> dict[str, bytes]:
    """Return the content of each file in the archive, by name; nothing is unpacked to disk."""
    files = {}
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                if (content := opened.extractfile(member)) is not None:  # no folder
                    files[Path(member.name).name] = content.read()
        return files
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{archive}: {error}") from None


def _part(files: Mapping[str, bytes], names: tuple[str, ...], folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels, float32[n, 3072] from 0 to 1, and labels, uint8[n]."""
    size = 1 + CONTRACT.length
    for name in names:
        data = files.get(name, b"")
        if not data or len(data) % size:
            raise DataError(f"{folder}: {name} has {len(data)} bytes; a file of records has {size:,} for each image")
    records = np.concatenate([np.frombuffer(files[name], np.uint8).reshape(-1, size) for name in names])
    if (records[:, 0] > 9).any():
        raise DataError(f"{folder}: a label in {', '.join(names)} is none of 0 to 9")
    return records[:, 1:] / np.float32(255), records[:, 0]
