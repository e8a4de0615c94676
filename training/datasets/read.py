"""Parameters -> the data set and the split that they name, from a data directory."""

from pathlib import Path
from typing import Literal, NamedTuple

from ecgwatch.beats import Bedside, Contract, ImageContract
from training.datasets import arrhythmia, download, heartbeat_csv, images
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
        release = images.RELEASES[parameters.dataset]
        files = download.ensure(directory / release.folder, release, offline=offline)
        data = images.load(files, parameters.dataset, ImageContract())
        return Data(ImageContract(), data, images.split(data, parameters.normal))
    by_beat = parameters.split == "by-beat"
    contract: Contract | Bedside = Bedside()
    if parameters.contract == "segment":
        contract = Contract(rr_window=parameters.rr_window, leads=() if by_beat else Contract().leads)
    names = arrhythmia.RECORDS if by_beat else arrhythmia.ELIGIBLE_DS1 + arrhythmia.DS2
    records = download.ensure(directory / arrhythmia.MITDB.folder, arrhythmia.MITDB, offline=offline)
    beats = arrhythmia.load(records, contract, parameters.normal, names)
    name: Literal["by-beat", "inter-patient"] = "by-beat" if by_beat else "inter-patient"
    split = arrhythmia.split(beats, name, parameters.normal, parameters.keep_mixed_windows)
    return Data(contract, beats, split)
