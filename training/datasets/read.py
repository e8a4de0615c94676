"""Parameters -> the data set and the split that they name, from a data directory."""

from pathlib import Path
from typing import Literal, NamedTuple

from ecgwatch.beats import Bedside, Contract, ImageContract
from training.datasets import arrhythmia, cifar, download, heartbeat_csv, images, norb
from training.datasets.dataset import Dataset, Split
from training.parameters import Parameters


class Data(NamedTuple):
    """Model inputs, what they are made of, and who trains and who is tested."""

    contract: Contract | Bedside | ImageContract
    inputs: Dataset
    split: Split


def read(parameters: Parameters, directory: Path, csv: Path | None = None, offline: bool = False) -> Data:
    """Read a data set, downloading what is missing unless `offline`.

    The draws by beat and by image are the same for all training seeds: these tell how the training varies, not the
    test set. directory: the data directory; csv: folder of the ready-made files. Raises DataError.
    """
    if parameters.source == "csv" and csv is not None:
        beats = heartbeat_csv.load(csv)
        return Data(Contract(rr_window="centred", leads=()), beats, heartbeat_csv.split(beats, parameters.normal))
    if parameters.dataset != "arrhythmia":
        image, data = _images(parameters.dataset, directory, offline)
        together = norb.CAMERAS if parameters.dataset == "small-norb" else 1
        return Data(image, data, images.split(data, parameters.normal, together=together))
    name: Literal["by-beat", "by-time", "inter-patient"] = "inter-patient"
    if parameters.split in ("by-beat", "by-time"):
        name = parameters.split
    shared = name != "inter-patient"  # patients are in training and test
    contract: Contract | Bedside = Bedside()
    if parameters.contract == "segment":
        contract = Contract(rr_window=parameters.rr_window, leads=() if shared else Contract().leads)
    names = arrhythmia.RECORDS if shared else arrhythmia.ELIGIBLE_DS1 + arrhythmia.DS2
    records = download.ensure(directory / arrhythmia.MITDB.folder, arrhythmia.MITDB, offline=offline)
    beats = arrhythmia.load(records, contract, parameters.normal, names)
    folds = 0 if shared else parameters.folds
    split = arrhythmia.split(beats, name, parameters.normal, parameters.keep_mixed_windows, folds=folds)
    return Data(contract, beats, split)


def _images(dataset: str, directory: Path, offline: bool) -> tuple[ImageContract, Dataset]:
    if dataset == "cifar-10":
        return cifar.CONTRACT, cifar.load(directory / cifar.RELEASE.folder, offline)
    if dataset == "small-norb":
        return norb.CONTRACT, norb.load(directory / norb.RELEASE.folder, offline)
    release = images.RELEASES[dataset]
    files = download.ensure(directory / release.folder, release, offline=offline)
    return ImageContract(), images.load(files, dataset, ImageContract())
