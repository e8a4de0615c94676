"""`ecgwatch benchmark`: its arguments, and one comparison from them."""

import argparse
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from ecgwatch.config import Settings
from ecgwatch.errors import ConfigError
from training.benchmark.baselines import EPOCHS
from training.benchmark.paper import cli as paper_cli
from training.benchmark.rows import read_csv, write_csv
from training.parameters import CLASSES, Precision
from training.text import write_page

DATASETS = ("arrhythmia", "mnist", "fashion-mnist")
TRAINING = ("epochs", "cooldown", "precision")  # parameters that may be other than the release's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the comparisons of `ecgwatch benchmark`, each with its options."""
    kinds = parser.add_subparsers(title="comparisons", metavar="COMPARISON", required=True)

    placement = _kind(
        kinds, "placement", _placement, "ways to place one beat in a t-SNE map, and the joint map of the paper"
    )
    placement.add_argument("--quick", action="store_true", help="one seed, ECG only, little training, fewer points")
    _jobs(placement, "models")
    _device(placement)
    for name in TRAINING:
        text = "of training, where not the release's (images: the paper's)"
        text += "; the tables name the epochs" if name == "epochs" else ""
        values: dict[str, Any] = {"choices": get_args(Precision)} if name == "precision" else {"type": int}
        placement.add_argument(f"--{name}", help=text, **values)

    crowd = _kind(kinds, "crowd", _crowd, "what the number of anomalies does to the joint map's figure")
    for one in (placement, crowd):
        one.add_argument(
            "--dataset",
            nargs="+",
            choices=DATASETS,
            default=DATASETS,
            metavar="SET",
            help=f"default: {' '.join(DATASETS)}",
        )
        one.add_argument(
            "--only", nargs="+", metavar="NAME", help="only models whose run folder has one of these names"
        )
        _runs(one, "runs/release")
        _tables_only(one)

    paper_cli.add_arguments(
        _kind(kinds, "paper", paper_cli.run, "the paper's tables, figures and claims, cell by cell")
    )

    references = _kind(kinds, "references", _references, "which normal beats enter the map, and what they cost")
    references.add_argument("--bundle", default="default", help="bundle whose encoder is used; default: %(default)s")
    references.add_argument("--costs-only", action="store_true", help="time again, and keep the figures in --out")

    strangers = _kind(kinds, "strangers", _strangers, "patients never seen: the default model's runs on DS2")
    strangers.add_argument(
        "--runs", nargs="+", type=Path, required=True, metavar="DIR", help="run folders, a seed each"
    )
    strangers.add_argument("--segment", metavar="BUNDLE", help="a bundle of the paper's segment, to stand beside them")
    strangers.add_argument("--robustness", action="store_true", help="also with R peaks moved, and with noise (nstdb)")

    folds = _kind(kinds, "folds", _folds, "settings of the default model, cross-validated over DS1's patients")
    folds.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="other than the default's, as filters=32 denoise=0"
    )
    _jobs(folds, "folds")

    reconstruction = _kind(
        kinds, "reconstruction", _reconstruction, "what the paper leaves open, and reconstruction alone"
    )
    reconstruction.add_argument("--dataset", choices=CLASSES, required=True)
    reconstruction.add_argument("--anomaly", nargs="+", required=True, metavar="CLASS", help="each absent in turn")
    reconstruction.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="other than the paper's, as latent=5 epochs=5"
    )
    _device(reconstruction)

    leads = _kind(kinds, "leads", _leads, "two ECG leads as one input beside one lead: the default model on DS2")
    leads.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    _runs(leads, "runs/leads")

    baselines = _kind(kinds, "baselines", _baselines, "other methods on the paper's ECG task, on the same points")
    baselines.add_argument("--method", nargs="+", metavar="NAME", help="only methods whose name begins with NAME")
    baselines.add_argument("--anomaly", nargs="+", choices=CLASSES["arrhythmia"], default=list(CLASSES["arrhythmia"]))
    baselines.add_argument("--seed", nargs="+", type=int, default=[0], metavar="N", help="default: 0")
    baselines.add_argument("--epochs", type=int, default=EPOCHS, help="of what is trained here; default: %(default)s")
    baselines.add_argument("--most", type=int, metavar="N", help="points for what is trained here; default: all")
    baselines.add_argument(
        "--minutes", type=float, default=math.inf, help="begin no new row after so many; default: no limit"
    )
    _runs(baselines, "runs/release")
    _tables_only(baselines)

    for one in (placement, references, strangers, folds, reconstruction, leads, baselines):
        one.add_argument("--data", type=Path, metavar="DIR", help="data directory (default: [data] directory)")
    for out, of in {
        "docs/placement": (placement, crowd, references),
        "docs/strangers": (strangers,),
        "docs/benchmark": (leads, baselines),
    }.items():
        for one in of:
            _path(one, "--out", out, "DIR", "tables")
    _path(folds, "--out", "docs/strangers/folds.csv", "FILE", "rows")
    _path(reconstruction, "--out", "docs/benchmark/reconstruction.csv", "FILE", "rows")


def _path(parser: argparse.ArgumentParser, name: str, default: str, kind: str, text: str) -> None:
    parser.add_argument(name, type=Path, default=Path(default), metavar=kind, help=f"{text} (default: %(default)s)")


def _runs(parser: argparse.ArgumentParser, default: str) -> None:
    _path(parser, "--runs", default, "DIR", "run folders")


def _tables_only(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tables-only", action="store_true", help="compute nothing; tables of what is there")


def _jobs(parser: argparse.ArgumentParser, of: str) -> None:
    parser.add_argument(
        "--jobs", type=_above_0, default=os.cpu_count() or 1, help=f"{of} at once, one core each; default: all cores"
    )


def _above_0(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number above 0")
    return int(text)


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where models are trained; default: auto"
    )


def _kind(kinds: Any, name: str, function: Callable[..., None], text: str) -> argparse.ArgumentParser:
    parser = kinds.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(comparison=function)
    return parser


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Compute what is missing, then write tables and pictures; returns the exit code."""
    args.comparison(args, settings)
    return 0


def _placement(args: argparse.Namespace, settings: Settings) -> None:
    from training import release, train
    from training.benchmark import placement, placement_page, placement_tables
    from training.parameters import defaults

    chosen = placement.experiments(["arrhythmia"] if args.quick else args.dataset, args.quick)
    if args.only:
        chosen = [one for one in chosen if one.name in args.only]
    if not args.tables_only:
        on = train.device(args.device)
        base = {name: defaults(name) for name in args.dataset} | {"arrhythmia": release.parameters("by-beat")}
        given = {name: value for name in TRAINING if (value := getattr(args, name)) is not None}
        if args.quick:
            given.setdefault("precision", "float32")  # the release's bfloat16 is slow on processors that lack it
        base = {name: replace(of_data, **given) for name, of_data in base.items()}
        placement.run(chosen, base, args.data or Path(settings.data.directory), args.runs, args.jobs, on)
    saved = [one for experiment in chosen if (one := placement_tables.read(experiment, args.runs / experiment.name))]
    if not saved:
        raise ConfigError(f"--runs {args.runs} holds nothing to make tables of; run without --tables-only first")
    order = placement.experiments(DATASETS, args.quick)
    print(placement_page.write(args.out, saved, order, args.quick))


def _crowd(args: argparse.Namespace, settings: Settings) -> None:
    from training.benchmark import crowd, pictures, placement

    args.out.mkdir(parents=True, exist_ok=True)
    made, said = {}, ["# The joint map and the crowd\n\nWritten by `ecgwatch benchmark crowd`; docs/placement.md."]
    for one in placement.experiments(DATASETS):
        folder, saved = args.runs / one.name, args.out / f"crowd-{one.name}.csv"
        named = one.name in args.only if args.only else one.normal == ("N",) and one.seed == 0
        if named and one.dataset in args.dataset and not args.tables_only:
            if not (folder / "points.npz").exists():
                raise ConfigError(f"{folder} holds no points yet: run 'ecgwatch benchmark placement' first")
            crowd.run(folder, one.seed)
            shutil.copy(folder / "crowd.csv", saved)  # what another machine drew stays beside it
        if saved.exists():
            draws = made[f"{one.dataset}: {one.title}"] = read_csv(saved, crowd.Draw)
            said.append(f"## {one.dataset}: {one.title}\n\n{crowd.table(draws)}")
    if not made:
        raise ConfigError(f"--out {args.out} holds no draws to make tables of; run without --tables-only first")
    pictures.crowds(args.out / "crowd.png", made)
    _write(args.out / "crowd.md", said)


def _write(file: Path, parts: Sequence[str]) -> None:
    """Write a page, and print it."""
    print(write_page(file, parts))


def _strangers(args: argparse.Namespace, settings: Settings) -> None:
    from ecgwatch import bundle as bundles
    from training.benchmark import robustness, strangers

    directory = args.data or Path(settings.data.directory)
    parts = ["# Patients never seen: tables", strangers.PROTOCOL]
    parts.append(strangers.run(args.runs, directory, args.out, args.segment))
    if args.robustness:
        rows = robustness.run(bundles.load(args.runs[0] / "bundle"), directory)
        strangers.write_csv(args.out / "robustness.csv", rows)
    _write(args.out / "tables.md", parts)


def _folds(args: argparse.Namespace, settings: Settings) -> None:
    from training.benchmark import folds

    candidate = folds.candidate(args.set)
    folds.run(candidate, args.data or Path(settings.data.directory), args.out, args.jobs)


def _reconstruction(args: argparse.Namespace, settings: Settings) -> None:
    from training import train
    from training.benchmark import folds, reconstruction

    on = train.device(args.device)
    if unknown := [one for one in args.anomaly if one not in CLASSES[args.dataset]]:
        raise ConfigError(f"{unknown[0]} is no class of {args.dataset}: they are {', '.join(CLASSES[args.dataset])}")
    for anomaly in args.anomaly:
        parameters = folds.candidate(args.set, reconstruction.wanted(args.dataset, anomaly), reconstruction.VARIED)
        row = reconstruction.run(parameters, args.data or Path(settings.data.directory), args.out, on)
        print(f"{anomaly}: AUROC {row.sampled:.4f} through a sampled z, {row.through_mean:.4f} through the mean")


def _leads(args: argparse.Namespace, settings: Settings) -> None:
    from training.benchmark import leads

    rows = leads.run(sorted(set(args.seeds)), args.data or Path(settings.data.directory), args.runs, args.out)
    _write(args.out / "leads.md", [leads.page(rows)])


def _baselines(args: argparse.Namespace, settings: Settings) -> None:
    import torch

    from training import release
    from training.benchmark.baselines import experiment, page
    from training.benchmark.baselines.methods import METHODS
    from training.datasets.read import read

    wanted = tuple(args.method or [""])
    names = [name for name in METHODS if name.startswith(wanted)]
    if not names:
        raise ConfigError(f"--method {' '.join(wanted)}: must begin one of {', '.join(METHODS)}")
    file, rows = args.out / "baselines.csv", []
    if not args.tables_only:
        torch.set_num_threads(1)
        beats = read(release.parameters(experiment.SPLIT), args.data or Path(settings.data.directory)).inputs
        source = experiment.Source(beats, args.runs, args.epochs, args.most)
        rows = experiment.run(source, args.out, names, args.anomaly, args.seed, args.minutes)
    rows = rows or experiment.ordered(read_csv(file, experiment.Row))
    if not rows:
        raise ConfigError(f"--out {args.out} holds nothing to make a page of; run without --tables-only first")
    write_csv(file, [*rows, *page.published_rows()], experiment.DIGITS)
    tuning = read_csv(args.out / "baselines-tuning.csv", experiment.Tuning)
    _write(args.out / "baselines.md", [page.page(rows, tuning)])


def _references(args: argparse.Namespace, settings: Settings) -> None:
    from ecgwatch import bundle as bundles
    from training.benchmark import references_page

    bundle = bundles.load(args.bundle)
    print(references_page.write(bundle, args.data or Path(settings.data.directory), args.out, args.costs_only))
