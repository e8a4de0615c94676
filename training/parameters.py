"""Everything that decides what a run produces, in one flat place; loads no torch, so that `--help` is quick."""

from dataclasses import dataclass
from typing import Literal

Initial = Literal["torch", "glorot"]
Precision = Literal["float32", "bfloat16"]

# the classes of each data set, in the order shown, and their names
CLASSES = {
    "arrhythmia": {"N": "normal", "S": "supraventricular", "V": "ventricular", "F": "fusion", "Q": "paced, unknown"},
    "mnist": dict.fromkeys("0123456789", ""),
    "fashion-mnist": {
        "0": "T-shirt",
        "1": "trouser",
        "2": "pullover",
        "3": "dress",
        "4": "coat",
        "5": "sandal",
        "6": "shirt",
        "7": "sneaker",
        "8": "bag",
        "9": "ankle boot",
    },
    "cifar-10": {
        "0": "airplane",
        "1": "automobile",
        "2": "bird",
        "3": "cat",
        "4": "deer",
        "5": "dog",
        "6": "frog",
        "7": "horse",
        "8": "ship",
        "9": "truck",
    },
    "small-norb": {"0": "animal", "1": "human", "2": "airplane", "3": "truck", "4": "car"},
}


@dataclass(frozen=True)
class Parameters:
    """Everything that decides what a run produces."""

    dataset: str = "arrhythmia"
    # csv: the ready-made files, which name no patient; idx, bin, mat: the publishers' formats of images
    source: Literal["records", "csv", "idx", "bin", "mat"] = "records"
    # by-beat: the paper's 80/20, patients shared; by-time: the last fifth of each record, for the benchmark;
    # by-image: the official files
    split: Literal["inter-patient", "by-beat", "by-time", "by-image"] = "inter-patient"
    # between patients, of whom scaling and thresholds are taken. 0: of six patients, who do not train. Else of all,
    # each judged by a model that the patients of the other folds trained (docs/training.md)
    folds: int = 0
    normal: tuple[str, ...] = ("N",)  # classes that train
    # what a model of heartbeats sees. segment: the paper's; bedside: the beat relative to its patient's typical beat
    contract: Literal["segment", "bedside"] = "segment"
    leads: int = 1  # of one input (bedside); two in `ecgwatch benchmark leads` alone
    encoder: Literal["tcn", "cnn", "lstm"] = "tcn"  # of the segment; table 3 gives the TCN alone (figures 5, 16, 17)
    keep_mixed_windows: bool = False  # also train on normal windows that hold an abnormal beat (parity)
    rr_window: Literal["past", "centred"] = (
        "past"  # or centred: the original's median RR, which looks 5 s ahead (parity)
    )
    latent: int = 10  # open in the paper; see training/networks.py
    filters: int = 64  # of the TCN (table 3)
    # weights before training. glorot: uniform, biases zero, Keras's default; of images, where it brings MNIST nearer to
    # the paper's (docs/benchmark/choices.md), whose table 3 uses the words of a Keras package
    initial: Initial = "torch"
    denoise: float = 0.0  # share of training beats to which the encoder sees made-up ectopic waves added (bedside)
    beta: float = 0.01  # eq. 1; the paper's best on this data set (table 2: .01 for four classes of five)
    capacity: float = 25.0  # C at the end, nats (Burgess et al. 2018); open in the paper
    # the map sees each latent dimension in units of its standard deviation: dimensions that the capacity left nearly
    # unused count as much as the others (latent 20, by beat: S .947 -> .951; nothing at 10, where all are in use)
    unit_latents: bool = False
    # S joins the logarithms of NSE and D, both scaled: else one term's outliers leave the other no say. By beat (latent
    # 20) it gains .0017, on calibration beats against the abnormal beats of the training part; between patients nothing
    log_terms: bool = False
    # scaled, D counts as no more than this: how far outside the map a beat lies says less than that it does, and one
    # noisy beat far away must not outweigh all that NSE says
    most_distance: float | None = None
    epochs: int = 50  # section 4; 20 of MNIST and Fashion-MNIST
    cooldown: int = 4  # further epochs at a tenth of the learning rate: AUROC by beat .943 -> .947 after two
    batch: int = 100  # section 4
    learning_rate: float = 1e-3  # table 3
    # bfloat16: products in half the bits, weights and losses in float32; quicker where the processor has it (AMX, GPUs)
    precision: Precision = "float32"
    seed: int = 0
    # normal beats in the map, as many of each patient: chosen by cross-validation over training patients. One whom the
    # map has not seen is better judged by a coarse map (S .876 with 500, .863 with 1,000, .815 with 5,000); where
    # patients are shared more serve better, up to all (docs/placement.md)
    references: int = 500
    perplexity: float = 30.0  # section 4
    # virtual peers of ecgwatch.tsne_map, chosen on calibration beats against the abnormal beats of the by-beat training
    # part: with latent 10 D gains .002 from 5 to 20; with 20 unit latents and --log-terms S loses .0003 (two seeds)
    peers: int = 20


# those that are options of `ecgwatch train` by their names, and that `ecgwatch benchmark folds` tries
NUMBERS = (
    "latent",
    "filters",
    "denoise",
    "beta",
    "capacity",
    "epochs",
    "cooldown",
    "references",
    "perplexity",
    "peers",
    "seed",
)

# Between patients, chosen by cross-validation over DS1's patients; among the last candidates, which DS1 could not tell
# apart, by DS2 too (docs/strangers.md, "Looks at DS2"). A small capacity: what the latents do not hold is left to NSE,
# and an ectopic beat is not drawn well. A coarse map with many peers, because the patient is a stranger to it. And a
# quarter of the paper's filters: as good, and much quicker.
BEDSIDE = Parameters(
    contract="bedside",
    folds=4,
    latent=4,
    filters=16,
    denoise=0.5,
    capacity=4.0,
    most_distance=5.0,
    epochs=10,
    cooldown=2,
    perplexity=100.0,
    peers=50,
)
# of a typical beat's energy, what may be drawn beside it: about what half of the normal beats deviate by. Chosen on
# DS1, where .02 to .12 serve alike (docs/strangers.md)
MOST_DRAWN = 0.05
PAPER_REFERENCES = 5_000  # figure 3: where training and test share patients, or there are none
_SOURCES: dict[str, Literal["idx", "bin", "mat"]] = {
    "mnist": "idx",
    "fashion-mnist": "idx",
    "cifar-10": "bin",
    "small-norb": "mat",
}


def defaults(dataset: str, split: str | None = None, contract: str | None = None) -> Parameters:
    """Return what holds for a data set, a split and a contract where nothing else is asked for.

    Of images the paper's numbers. By beat they are the same for both contracts, and name the segment.
    """
    if dataset == "arrhythmia":
        if split == "by-beat":
            return Parameters(split="by-beat", references=PAPER_REFERENCES)
        return Parameters() if contract == "segment" else BEDSIDE
    source = _SOURCES[dataset]
    return Parameters(
        dataset=dataset,
        source=source,
        split="by-image",
        normal=(),
        initial="glorot",
        epochs=20 if source == "idx" else Parameters.epochs,
        cooldown=0,
        references=PAPER_REFERENCES,
    )
