"""`ecgwatch train`: its arguments, and one run from them."""

import argparse
from pathlib import Path

from ecgwatch.beats import Contract
from ecgwatch.config import Settings
from training.parameters import CLASSES, Parameters

_DEFAULTS = Parameters()
_CLASSES = tuple(CLASSES["arrhythmia"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ecgwatch train`."""
    parser.add_argument("--dataset", choices=("arrhythmia",), required=True, help="arrhythmia: MIT-BIH, 48 records")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data directory (default: [data] directory)")
    parser.add_argument(
        "--csv", type=Path, metavar="DIR", help="train on the ready-made mitbih_train.csv and mitbih_test.csv there"
    )
    parser.add_argument(
        "--split", choices=("inter-patient", "by-beat"), default=_DEFAULTS.split, help="default: %(default)s"
    )
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument(
        "--normal", nargs="+", choices=_CLASSES, metavar="CLASS", help="AAMI classes that train (default: N)"
    )
    classes.add_argument(
        "--anomaly", choices=_CLASSES, metavar="CLASS", help="the paper's way: train on all classes but this one"
    )
    parser.add_argument(
        "--keep-mixed-windows",
        action="store_true",
        help="also train on normal windows that hold an abnormal beat (parity)",
    )
    parser.add_argument(
        "--rr-window",
        choices=("past", "centred"),
        default=_DEFAULTS.rr_window,
        help="centred looks 5 s ahead (parity; cannot be served)",
    )
    for name, kind, text in (
        ("latent", int, "latent size"),
        ("beta", float, "beta of eq. 1, above 0"),
        ("capacity", float, "C at the end, nats"),
        ("epochs", int, "passes over the data"),
        ("cooldown", int, "further passes at a tenth of the learning rate"),
        ("references", int, "normal beats in the map"),
        ("perplexity", float, "of the t-SNE map"),
        ("seed", int, "of weights, order and map"),
    ):
        default = getattr(_DEFAULTS, name)
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} (default: {default:g})")
    parser.add_argument(
        "--unit-latents",
        action="store_true",
        help="show the map each latent dimension in units of its standard deviation",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default=_DEFAULTS.precision,
        help="of the products in training; bfloat16 is quicker where the processor has it (AMX, GPUs) and slower "
        "elsewhere (default: %(default)s)",
    )
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="run folder; the same folder again continues it (default: runs/<name>)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    parser.add_argument(
        "--threads",
        type=int,
        default=0,
        help="of torch on the CPU (default: all cores); weights repeat for the same number",
    )
    parser.add_argument("--offline", action="store_true", help="never download")


def parameters(args: argparse.Namespace) -> Parameters:
    """Return the parameters that the arguments name; raises ConfigError for values out of range."""
    from ecgwatch.errors import ConfigError

    for name in ("beta", "latent", "epochs", "references"):
        if not getattr(args, name) > 0:
            raise ConfigError(f"--{name} must be above 0")
    normal = tuple(args.normal or (c for c in _CLASSES if c != args.anomaly) if args.normal or args.anomaly else "N")
    return Parameters(
        dataset=args.dataset,
        source="csv" if args.csv else "records",
        split="by-beat" if args.csv else args.split,
        normal=tuple(sorted(set(normal), key=_CLASSES.index)),
        keep_mixed_windows=args.keep_mixed_windows or bool(args.csv),  # the files do not tell which windows are
        rr_window="centred" if args.csv else args.rr_window,
        precision=args.precision,
        unit_latents=args.unit_latents,
        **{
            name: getattr(args, name)
            for name in ("latent", "beta", "capacity", "epochs", "cooldown", "references", "perplexity", "seed")
        },
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Train one model: data, run folder, bundle, report; returns the exit code."""
    import torch

    from training import model_card, pipeline, run_report
    from training.datasets import arrhythmia, heartbeat_csv
    from training.datasets.download import ensure
    from training.train import device

    wanted = parameters(args)
    folder = args.run or Path("runs") / f"{wanted.dataset}-{wanted.split}-{''.join(wanted.normal)}-seed{wanted.seed}"
    on = device(args.device)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    print(f"training on {on} ({torch.get_num_threads()} threads) into {folder}")
    if args.csv:
        contract = Contract(rr_window="centred", leads=())
        beats = heartbeat_csv.load(args.csv)
        split = heartbeat_csv.split(beats, wanted.normal)
    else:
        data = args.data or Path(settings.data.directory)
        contract = Contract(rr_window=wanted.rr_window, leads=() if wanted.split == "by-beat" else Contract().leads)
        names = arrhythmia.RECORDS if wanted.split == "by-beat" else arrhythmia.ELIGIBLE_DS1 + arrhythmia.DS2
        beats = arrhythmia.load(
            ensure(data / arrhythmia.MITDB.folder, arrhythmia.MITDB, offline=args.offline),
            contract,
            wanted.normal,
            names,
        )
        # the by-beat draw is the same for all seeds: they tell how the training varies, not the test set
        split = arrhythmia.split(beats, wanted.split, wanted.normal, wanted.keep_mixed_windows)
    print(f"{len(split.train)} beats train, {len(split.calibration)} calibrate, {len(split.test)} test")
    result = pipeline.run(wanted, contract, beats, split, folder, on, model_card.render)
    run_report.write(folder, wanted, beats, split, result)
    print(f"bundle {folder / 'bundle'} ({result.bundle.sha256[:12]}), report {folder / 'report.html'}")
    return 0
