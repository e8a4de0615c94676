"""`ecgwatch train`: its arguments, and one run from them."""

import argparse
from dataclasses import replace
from pathlib import Path

from ecgwatch.config import Settings
from ecgwatch.errors import ConfigError, DataError
from training.parameters import CLASSES, NUMBERS, Parameters, defaults

_HEARTBEATS_ONLY = ("csv", "split", "contract", "encoder", "rr_window", "keep_mixed_windows")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ecgwatch train`."""
    ecg, by_beat = defaults("arrhythmia"), defaults("arrhythmia", "by-beat")
    images, larger = defaults("mnist"), defaults("cifar-10")
    parser.add_argument(
        "--dataset",
        choices=tuple(CLASSES),
        required=True,
        help="arrhythmia: MIT-BIH, 48 records; the others: images, the paper's experiment",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="data directory (default: [data] directory)")
    parser.add_argument(
        "--csv", type=Path, metavar="DIR", help="train on the ready-made mitbih_train.csv and mitbih_test.csv there"
    )
    parser.add_argument("--split", choices=("inter-patient", "by-beat"), help=f"of arrhythmia; default: {ecg.split}")
    parser.add_argument(
        "--folds",
        type=int,
        help="between patients: folds of the training patients, each of which sets scaling and thresholds through a "
        f"model of the others; 0: six patients do, and do not train (default: {ecg.folds}; --contract segment 0)",
    )
    parser.add_argument(
        "--contract",
        choices=("bedside", "segment"),
        help="what a model of heartbeats sees: a beat relative to its patient's typical beat, or the paper's segment; "
        "default: bedside between patients, segment by beat",
    )
    parser.add_argument(
        "--encoder",
        choices=("tcn", "cnn", "lstm"),
        help="of the paper's segment (--contract segment); cnn and lstm have as many parameters; default: tcn",
    )
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument(
        "--normal",
        nargs="+",
        metavar="CLASS",
        help="classes that train, of N S V F Q (default: N), 0 to 9, or 0 to 4 (small-norb)",
    )
    classes.add_argument("--anomaly", metavar="CLASS", help="the paper's way: train on all classes but this one")
    parser.add_argument(
        "--keep-mixed-windows",
        action="store_true",
        help="arrhythmia: also train on normal windows that hold an abnormal beat (parity)",
    )
    parser.add_argument(
        "--rr-window",
        choices=("past", "centred"),
        help=f"of arrhythmia; centred looks 5 s ahead (parity; cannot be served); default: {ecg.rr_window}",
    )
    for name, kind, text in (
        ("latent", int, "latent size"),
        ("filters", int, "of the TCN; bedside contract only"),
        (
            "denoise",
            float,
            "share of training beats that the encoder sees with made-up ectopics; bedside contract only",
        ),
        ("beta", float, "beta of eq. 1, above 0"),
        ("capacity", float, "C at the end, nats"),
        ("epochs", int, "passes over the data"),
        ("cooldown", int, "further passes at a tenth of the learning rate"),
        ("references", int, "normal beats or images in the map"),
        ("perplexity", float, "of the t-SNE map"),
        ("peers", int, "virtual peers that a beat's affinities meet"),
        ("seed", int, "of weights, order and map"),
    ):
        values = [f"{getattr(one, name):g}" for one in (ecg, by_beat, images, larger)]
        default = values[0]
        for said, usual, here in (
            ("by beat", values[0], values[1]),
            ("of images", values[0], values[2]),
            ("of cifar-10 and small-norb", values[2], values[3]),
        ):
            default += f"; {said} {here}" if here != usual else ""
        parser.add_argument(f"--{name}", type=kind, help=f"{text} (default: {default})")
    parser.add_argument(
        "--unit-latents",
        action="store_true",
        help="show the map each latent dimension in units of its standard deviation",
    )
    parser.add_argument("--log-terms", action="store_true", help="join the logarithms of NSE and D in the score")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default=ecg.precision,
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
    default = defaults(args.dataset, "by-beat" if args.csv else args.split, args.contract)
    numbers = {name: getattr(default if getattr(args, name) is None else args, name) for name in NUMBERS}
    for name in ("beta", "latent", "filters", "epochs", "references", "peers"):
        if not numbers[name] > 0:
            raise ConfigError(f"--{name} must be above 0")
    for name in ("seed", "cooldown", "capacity"):
        if not numbers[name] >= 0:
            raise ConfigError(f"--{name} must be 0 or above")
    if not 0 <= numbers["denoise"] <= 1:
        raise ConfigError("--denoise is a share: 0 to 1")
    if not numbers["perplexity"] > 1:
        raise ConfigError("--perplexity must be above 1")
    if not numbers["references"] > numbers["peers"]:
        raise ConfigError("--references must be above --peers")
    given = [name for name in _HEARTBEATS_ONLY if getattr(args, name)]
    if given and args.dataset != "arrhythmia":
        raise ConfigError(f"--{given[0].replace('_', '-')} is for --dataset arrhythmia, not for {args.dataset}")
    if args.folds is not None and (default.split != "inter-patient" or args.folds < 0 or args.folds == 1):
        raise ConfigError("--folds must be 0, or 2 or more, and is for --split inter-patient")
    contract = args.contract or default.contract
    for name in ("csv", "encoder", "rr_window"):
        if getattr(args, name) and contract != "segment":
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is of the paper's segment: add --contract segment, or --split by-beat")
    if args.csv and (args.split == "inter-patient" or args.rr_window == "past"):
        other = "--split inter-patient" if args.split == "inter-patient" else "--rr-window past"
        raise ConfigError(f"--csv: these files are split by beat and scaled by a centred RR; leave out {other}")
    for name in ("filters", "denoise"):
        if getattr(args, name) is not None and contract != "bedside":
            raise ConfigError(f"--{name} is of the bedside contract")
    return replace(
        default,
        source="csv" if args.csv else default.source,
        folds=default.folds if args.folds is None else args.folds,
        contract=contract,
        encoder=args.encoder or default.encoder,
        normal=_normal(args, default),
        keep_mixed_windows=args.keep_mixed_windows or bool(args.csv),  # the files do not tell which windows are
        rr_window="centred" if args.csv else args.rr_window or default.rr_window,
        precision=args.precision,
        unit_latents=args.unit_latents,
        log_terms=args.log_terms,
        **numbers,
    )


def _normal(args: argparse.Namespace, default: Parameters) -> tuple[str, ...]:
    """Return the classes that train, in the order of the data set."""
    kinds = CLASSES[args.dataset]
    named = args.normal or default.normal if args.anomaly is None else (args.anomaly,)
    if not named:
        raise ConfigError(f"--dataset {args.dataset} needs --anomaly CLASS (or --normal CLASS ...): {', '.join(kinds)}")
    if unknown := [kind for kind in named if kind not in kinds]:
        raise ConfigError(f"{unknown[0]} is no class of {args.dataset}: they are {', '.join(kinds)}")
    normal = tuple(kind for kind in kinds if (kind in named) == (args.anomaly is None))
    if len(normal) == len(kinds):
        raise ConfigError("--normal names every class; leave out what is to be anomalous")
    return normal


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Train one model: data, run folder, bundle, report; returns the exit code.

    Raises DataError where a file of the run cannot be written.
    """
    wanted = parameters(args)
    folder = args.run or Path("runs") / f"{wanted.dataset}-{wanted.split}-{''.join(wanted.normal)}-seed{wanted.seed}"
    try:
        _train(args, settings, wanted, folder)
    except OSError as error:
        at = f" ({error.filename})" if error.filename else ""
        raise DataError(f"run folder {folder}: {error.strerror or error}{at}") from None
    return 0


def _train(args: argparse.Namespace, settings: Settings, wanted: Parameters, folder: Path) -> None:
    import torch

    from training import model_card, pipeline, run_report
    from training.datasets.read import read
    from training.run_folder import open_run
    from training.train import device

    on = device(args.device)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    print(f"training on {on} ({torch.get_num_threads()} threads) into {folder}")
    if (folder / "parameters.json").exists():
        open_run(folder, wanted)  # said before the records are read, which takes a minute
    contract, data, split = read(wanted, args.data or Path(settings.data.directory), args.csv, args.offline)
    print(f"{len(split.train)} {contract.inputs} train, {len(split.calibration)} calibrate, {len(split.test)} test")
    this_run = pipeline.Run(wanted, contract, data, split, folder)
    result = pipeline.train(this_run, on, model_card.render)
    run_report.write(this_run, result)
    print(f"bundle {folder / 'bundle'} ({result.bundle.sha256[:12]}), report {folder / 'report.html'}")
