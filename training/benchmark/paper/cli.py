"""`ecgwatch benchmark paper`: its arguments, and the cells, tables and pictures that they name."""

import argparse
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from filelock import FileLock

from ecgwatch.config import Settings
from ecgwatch.errors import ConfigError, DataError
from training.parameters import CLASSES, Parameters, Precision, defaults

if TYPE_CHECKING:  # torch is imported when a comparison runs, not for --help
    from training.benchmark.paper.results import Cell, Row
    from training.benchmark.placement import Experiment

# which cells: option -> type, what it says, field of the cell
_FILTERS = {
    "dataset": (str, "data sets", "dataset"),
    "anomaly": (str, "anomalous classes", "anomaly"),
    "beta": (float, "betas", "beta"),
    "encoder": (str, "encoders of ECG: tcn, cnn, lstm", "encoder"),
    "seed": (int, "seeds", "seed"),
    "split": (str, "splits: by-beat, by-time, inter-patient, by-image", "split_name"),
    "share": (float, "shares of the training part", "share"),
}
TABLES_S = 60.0  # of a budget, at most: what tables and pictures of a grid take, and Python's start
# what --quick computes of these, where the options do not say
_QUICK: dict[str, Sequence[object]] = {
    "beta": [0.01],
    "encoder": ["tcn"],
    "seed": [0],
    "split": ["by-beat", "by-image"],
    "share": [1.0],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ecgwatch benchmark paper`."""
    for name, (kind, text, _) in _FILTERS.items():
        parser.add_argument(f"--{name}", nargs="+", type=kind, help=f"of the grid, these {text} alone (default: all)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="5 epochs, smaller maps; one beta, encoder, seed, split and share where no option asks for others; marked "
        "so everywhere",
    )
    parser.add_argument(
        "--jobs",
        default="auto",
        metavar="N",
        help="cells at once, one core each; default: auto, all cores there are. On a GPU auto tries once, in about a "
        "minute, how many of them had better train at once and how many points to encode at a time, and keeps that in "
        "device.json of --runs; the training batch stays the paper's",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where models are trained; default: auto"
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default=Parameters.precision,
        help="of the products in training; bfloat16 is quicker where the processor has it (lscpu: avx512_bf16, "
        "amx_bf16) and slower elsewhere; the tables name the cells made so; default: %(default)s",
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="MINUTES",
        help="stop after so long, tables included; the same command goes on where it stopped",
    )
    parser.add_argument(
        "--missing", action="store_true", help="leave out cells that cells.csv of --out has, from whichever machine"
    )
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--train-only", action="store_true", help="train and encode; leave t-SNE to another machine")
    part.add_argument("--map-only", action="store_true", help="t-SNE of what is trained and encoded; train nothing")
    part.add_argument("--tables-only", action="store_true", help="compute nothing; tables of what is there")
    parser.add_argument("--data", type=Path, metavar="DIR", help="data directory (default: [data] directory)")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/release"), metavar="DIR", help="run folders (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("docs/benchmark"), metavar="DIR", help="tables (default: %(default)s)"
    )


def run(args: argparse.Namespace, settings: Settings) -> None:
    """Compute what is missing, then write tables, pictures and the report; of --train-only, how far it is.

    Raises ConfigError where an option asks for what the grid or --runs has not, DataError where there is nothing to
    show.
    """
    start = time.monotonic()
    from training.benchmark.paper import cells, report, results

    jobs = _jobs(args.jobs)
    if args.budget is not None and not args.budget > 0:
        raise ConfigError("--budget must be above 0")
    grid = cells.grid(quick=args.quick)
    asked = _asked(grid, args)
    _writable(args.out, "--out")
    table = args.out / f"cells{'-quick' if args.quick else ''}.csv"
    before = results.read_csv(table)
    computed = [] if args.tables_only else _compute(args, settings, asked, before, jobs, start)
    if args.train_only:
        trained = sum(cells.done(args.runs / one.name, train_only=True) for one in computed)
        of_all = f"{trained} of {len(computed)} cells"
        print(f"{of_all} are trained and encoded in {args.runs}; --map-only goes on with them")
        return
    made, left_out = [], []
    for one in asked:
        try:
            if cells.done(args.runs / one.name):
                cells.refuse_another(one, _base(one.dataset), args.runs / one.name)
                made += results.saved_rows(one, args.runs / one.name)
        except (ConfigError, DataError) as error:
            left_out.append(one)
            print(f"{one.name} is left out: {error}", flush=True)
    with FileLock(args.out / ".cells.lock"):  # what another command wrote there meanwhile must not be lost
        rows = results.joined(made, results.read_csv(table), grid)
        if not rows:
            _say_nothing(args)
            return
        command = f"ecgwatch benchmark paper{' --quick' if args.quick else ''}"
        print(report.write(args.out, rows, partial(_saved, args, left_out, cache(results.load)), args.quick, command))


def _say_nothing(args: argparse.Namespace) -> None:
    nothing = f"--runs {args.runs} holds no cell that is done"
    if args.tables_only:
        raise ConfigError(f"{nothing}; run without --tables-only first")
    if args.budget is None:
        raise DataError(f"{nothing}, so there are no tables; the lines above say what is missing")
    print(f"{nothing} yet, so there are no tables; the same command goes on", flush=True)


def _saved(
    args: argparse.Namespace,
    left_out: Sequence["Experiment"],
    load: "Callable[[Experiment, Path], Cell | None]",
    dataset: str,
    anomaly: str,
    **other: float | str,
) -> "Cell | None":
    """Return what a cell of a picture saved, if it has come so far."""
    from training.benchmark.placement import Experiment

    normal = tuple(kind for kind in CLASSES[dataset] if kind != anomaly)
    one = replace(Experiment(dataset, normal, 0, args.quick), **other)  # type: ignore[arg-type]  # its fields
    return None if one in left_out else load(one, args.runs / one.name)


def _compute(
    args: argparse.Namespace,
    settings: Settings,
    asked: Sequence["Experiment"],
    before: Sequence["Row"],
    jobs: int | None,
    start: float,
) -> Sequence["Experiment"]:
    """Compute cells and return which; start: of the command, on the monotonic clock, which the budget counts from."""
    from training import train
    from training.benchmark.paper import cells, results

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no worker outlives a `timeout`
    there: Sequence[Experiment] = ()
    if args.missing:
        known = {results.cell_of(row) for row in before}
        there = [one for one in asked if results.named(one) in known]
        asked = [one for one in asked if one not in there]
        print(f"{len(there)} cells stand in {args.out} already; {len(asked)} are asked for", flush=True)
    if args.map_only:
        asked = [one for one in asked if cells.done(args.runs / one.name, train_only=True)]
        if not asked and not (args.missing and there):
            raise ConfigError(
                f"--map-only: --runs {args.runs} holds none of these cells trained; --train-only trains them"
            )
    _writable(args.runs, "--runs")
    base = {name: replace(_base(name), precision=args.precision) for name in cells.DATASETS}
    data = args.data or Path(settings.data.directory)
    budget_s = None
    if args.budget is not None:
        whole_s = 60 * args.budget
        budget_s = max(0.0, whole_s - min(TABLES_S, whole_s / 4) - (time.monotonic() - start))
    cells.run(asked, base, data, args.runs, jobs, train.device(args.device), budget_s, args.train_only)
    return asked


def _asked(grid: Sequence["Experiment"], args: argparse.Namespace) -> list["Experiment"]:
    """Return the cells of the grid that the options ask for; ConfigError where there is none, naming the option."""
    from training.benchmark.paper import cells

    for name, (_, _, field) in _FILTERS.items():
        there = list(dict.fromkeys(cells.value(one, field) for one in grid))
        for value in getattr(args, name) or ():
            if value not in there:
                said = ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in there)
                raise ConfigError(f"--{name} {value}: must be of {said}")
    found = cells.matching(grid, wanted(args))
    if not found:
        raise ConfigError("no cell of the grid is all that the options ask for together; leave one of them out")
    return found


def wanted(args: argparse.Namespace) -> dict[str, Sequence[object]]:
    """Return what the options ask of a cell: its field -> the values that will do."""
    quick = _QUICK if args.quick and not args.tables_only else {}
    asked = {field: getattr(args, name) or quick.get(name) for name, (_, _, field) in _FILTERS.items()}
    return {field: values for field, values in asked.items() if values is not None}


def _writable(folder: Path, option: str) -> None:
    """Make a folder; raise ConfigError where it cannot be written to, before hours of computing and not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{option} {folder}: cannot be written to: {error.strerror}") from None


def _jobs(text: str) -> int | None:
    """Return how many cells are done at once; None: what the machine likes."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--jobs {text}: must be auto, or a whole number above 0")
    return int(text)


def _base(dataset: str) -> Parameters:
    """Return what a data set's models are trained with, but for what a cell sets; in float32, unlike the release."""
    from training import release

    found = release.parameters("by-beat") if dataset == "arrhythmia" else defaults(dataset)
    return replace(found, precision=Parameters.precision)
