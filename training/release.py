"""Make the default bundle: train every seed under both protocols, then ship seed 0 between patients with all figures.

    python -m training.release            # hours on two cores; continues where it was stopped
    python -m training.release --only by-beat   # the other protocol's model and figures stay as they ship
    python -m training.release --repack   # of the bundle that ships graph and card are made again, and nothing else
    python -m training.release --remap    # the encoder stays; map, scales, thresholds and figures are made again,
                                          # scales and thresholds by models of the folds, which are trained for it

Writes ecgwatch/bundles/default.zip, docs/model-card.md and docs/figures/.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ecgwatch import bundle as bundles
from ecgwatch import config
from ecgwatch.errors import ConfigError, EcgwatchError
from training import cli, floor, model_card, pipeline, report, run_report, score_graph
from training.datasets.read import read
from training.parameters import Parameters
from training.pipeline import PROTOCOLS

SEEDS = (0, 1, 2)
RUNS: dict[str, list[str]] = {
    "inter-patient": [],
    # the literature's way by beat: every normal beat trains, also one whose window holds an abnormal beat
    "by-beat": [
        "--split",
        "by-beat",
        "--keep-mixed-windows",
        "--latent",
        "20",
        "--unit-latents",
        "--log-terms",
        "--peers",
        "5",
        "--epochs",
        "50",
        "--cooldown",
        "6",
        "--references",
        "65222",  # all of them
        "--precision",
        "bfloat16",
    ],
}


def parameters(name: str) -> Parameters:
    """Return what the runs of a name are trained with, seed 0."""
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.parameters(parser.parse_args(["--dataset", "arrhythmia", *RUNS[name]]))


def main() -> None:
    """Train what is not trained yet, and assemble."""
    parser = argparse.ArgumentParser(
        prog="python -m training.release",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/release"), help="default: %(default)s")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; weights repeat for the same number (default: 1)"
    )
    parser.add_argument("--assemble", action="store_true", help="train nothing; join the runs that are there")
    parser.add_argument("--only", choices=RUNS, help="train one protocol; of the other keep what ships")
    parser.add_argument(
        "--remap",
        action="store_true",
        help="to the encoder that ships make map, scales, thresholds and figures again, as this version would; trains "
        "the models of the folds alone, in remap/ of --runs; the other seeds' figures go: their encoders do not ship",
    )
    parser.add_argument(
        "--repack", action="store_true", help="train nothing: of the bundle that ships make graph and card again"
    )
    args = parser.parse_args()
    try:
        _run(args)
    except EcgwatchError as error:
        parser.exit(error.exit_code, f"{error}\n")


def _run(args: argparse.Namespace) -> None:
    directory = Path(config.load().data.directory)
    if args.remap:
        remap(args.runs, Path(), directory)
        return
    if args.repack:
        assemble(args.runs, Path(), directory, ())
        return
    names = [args.only] if args.only else list(RUNS)
    for name in () if args.assemble else names:
        for seed in SEEDS:
            run = ["--run", str(args.runs / f"{name}-{seed}"), "--seed", str(seed), "--threads", str(args.threads)]
            command = [sys.executable, "-m", "ecgwatch", "train", "--dataset", "arrhythmia", *RUNS[name], *run]
            subprocess.run(command, check=True)
    assemble(args.runs, Path(), directory, names)


def assemble(runs: Path, root: Path, directory: Path, names: Sequence[str] = tuple(RUNS)) -> None:
    """Join the runs' figures, render the card, and pack the bundle into the repository at `root`.

    directory: the data directory. names: the protocols that have runs; what ships of another stays, its model with the
    graph of this version.
    """
    made = {name: _finished(runs, name) for name in names}
    for name, of_seed in made.items():
        if 0 not in of_seed:
            raise ConfigError(f"{runs / f'{name}-0'} is not finished, whose figures ship: train it first")
    draft = made["inter-patient"][0] if "inter-patient" in made else _shipped()
    seeds = {name: _seeds({seed: one.manifest for seed, one in of_seed.items()}) for name, of_seed in made.items()}
    others = draft.manifest.figures.get("other") or bundles.load("default").manifest.figures.get("other", [])
    if "by-beat" in made:
        by_beat = made["by-beat"][0].manifest
        entry = {"text": _by_beat(by_beat), "auroc": by_beat.figures["auroc"], "seeds": seeds["by-beat"]}
        others = [entry, *(one for one in others if not one["text"].startswith(PROTOCOLS["by-beat"]))]
    _ship(draft, seeds, others, runs, root, directory)
    for name in names:
        target = root / "docs" / "figures" / name
        target.mkdir(parents=True, exist_ok=True)
        for picture in (*report.OF_TRAINING, *report.OF_BUNDLE):
            shutil.copy(runs / f"{name}-0" / picture, target / picture)


def remap(runs: Path, root: Path, directory: Path) -> None:
    """Make all but the encoder of the bundle at `root` again, and pack it; directory: the data directory.

    Raises ConfigError where this version would train another encoder.
    """
    shipped = bundles.load("default")
    wanted = parameters("inter-patient")
    trained = shipped.manifest.training["parameters"]
    here, there = _of_encoder(asdict(wanted)), _of_encoder(asdict(Parameters(**trained)))
    if differing := sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name)):
        raise ConfigError(f"the encoder that ships was trained with another {', '.join(differing)}: leave out --remap")
    run = pipeline.Run(wanted, *read(wanted, directory), runs / "remap")
    run.folder.mkdir(parents=True, exist_ok=True)
    encoder = score_graph.encoder_of(shipped.model)
    made = {name: shipped.manifest.training[name] for name in ("export_difference", "device")}
    held_out = pipeline.by_others(run, torch.device("cpu"))
    drawn, predictions = pipeline.complete(run, encoder, made, held_out, model_card.render)
    pictures = run_report.compose(run, drawn, predictions)
    report.save_pictures(root / "docs" / "figures" / "inter-patient", pictures, report.OF_BUNDLE)
    seeds = {"inter-patient": _seeds({wanted.seed: drawn.manifest})}
    _ship(drawn, seeds, shipped.manifest.figures.get("other", []), runs, root, directory)


def _of_encoder(parameters: dict[str, Any]) -> dict[str, Any]:
    """Those parameters that decide what is trained, as JSON has them."""
    later = ("references", "perplexity", "peers", "log_terms", "most_distance")
    return {name: value for name, value in json.loads(json.dumps(parameters)).items() if name not in later}


def _ship(
    draft: bundles.Bundle,
    seeds: dict[str, dict[str, Any]],
    others: Sequence[dict[str, Any]],
    runs: Path,
    root: Path,
    directory: Path,
) -> None:
    """Pack a bundle with its figures, and write its card, into the repository at `root`.

    seeds: figures across seeds of the protocols made now, those of others stay; others: protocols the card shows too.
    """
    file = root / "docs" / "figures" / "auroc.json"
    seeds = json.loads(file.read_text(encoding="utf-8")) | seeds
    figures = {
        **draft.manifest.figures,
        "seeds": seeds["inter-patient"],
        "floor": _floor(directory / "mitdb"),
        "other": others,
    }
    folder = runs / "default"
    finished = pipeline.finish(folder, draft, figures, model_card.render)
    bundles.pack(folder, root / "ecgwatch" / "bundles" / "default.zip")
    (root / "docs" / "model-card.md").write_text(finished.card, encoding="utf-8")
    file.write_text(json.dumps(seeds, indent=2) + "\n", encoding="utf-8")
    print(f"default bundle {finished.sha256[:12]}")


def _by_beat(manifest: bundles.Manifest) -> str:
    trained = manifest.training["parameters"]
    return (
        f"{manifest.protocol['text']}; normal beats whose window holds an abnormal beat train too; "
        f"another model than the one of this bundle: {trained['latent']} latent dimensions"
        f"{' in units of their standard deviation' * trained['unit_latents']}, {trained['epochs']} + "
        f"{trained['cooldown']} epochs, {trained['references']:,} references, {trained['peers']} virtual peers, "
        f"S of {'the logarithms of ' * trained['log_terms']}NSE and D"
    )


def _shipped() -> bundles.Bundle:
    """The bundle that ships, its graph made again: the map's part of it may be of an older version."""
    shipped = bundles.load("default")
    manifest = shipped.manifest
    scales = (manifest.nse, manifest.distance)
    whole = score_graph.append_map(score_graph.encoder_of(shipped.model), shipped.map, scales, manifest.alpha)
    return replace(shipped, model=whole)


def _finished(runs: Path, name: str) -> dict[int, bundles.Bundle]:
    """The bundles of those seeds whose run has ended; the figures name them."""
    folders = {seed: runs / f"{name}-{seed}" for seed in SEEDS}
    return {seed: bundles.load(run / "bundle") for seed, run in folders.items() if (run / "report.html").exists()}


def _seeds(of_seed: dict[int, bundles.Manifest]) -> dict[str, Any]:
    return model_card.across_seeds({seed: one.figures["auroc"] for seed, one in of_seed.items()})


def _floor(folder: Path) -> dict[str, dict[str, float]]:
    table = floor.on_ds2(folder)
    return {name: {column: round(value, 4) for column, value in row.items()} for name, row in table.items()}


if __name__ == "__main__":
    main()
