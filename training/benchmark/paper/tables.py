"""Rows of AUROC -> the paper's tables 1 and 2 with ours beside them, the goals, and what the paper shows as bars.

The two ways of choosing of `choices` stand side by side. A cell that was not computed is None, and so is a mean that
lacks a class.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.benchmark import published
from training.benchmark.paper.cells import ENCODERS, JOINT, JOINT_Z, SHARES, SPLITS
from training.benchmark.paper.choices import FIXED_BETA, at, best_of, fixed, nse_fixed, of_paper, select
from training.benchmark.paper.results import PLAIN, SAMPLED, THROUGH_MEAN, Row
from training.benchmark.placement_tables import ALPHAS, LATENT, OURS
from training.benchmark.rows import write_lines
from training.parameters import CLASSES, Parameters
from training.text import markdown_table

Line = dict[str, Any]  # a line of a table: column -> text, number or None
MEAN = "mean"
NOTHING = "Not computed."
RECONSTRUCTION, ANODM = "beta-VAE, reconstruction only", "AnoDM"
# mean AUROC to reach (S: the paper's tables 1 and 2) and to lie near by (reconstruction only)
GOALS = {"mnist": 0.975, "fashion-mnist": 0.883, "cifar-10": 0.640, "arrhythmia": 0.940}
NEAR = {"mnist": 0.913, "fashion-mnist": 0.683, "cifar-10": 0.532}
WITHIN = 0.02


def table_1(rows: Sequence[Row]) -> list[Line]:
    """Return table 1: of every class the published methods, and ours by both ways of choosing and of placing."""

    def line(of_class: Sequence[Row], printed: Mapping[str, float | None]) -> Line:
        reconstruction = best_of(at(of_class, JOINT), (1.0,))
        joint = [one for placing in (JOINT, JOINT_Z) if (one := best_of(at(of_class, placing)))]
        best = max(joint, default=None)
        frozen = best_of(at(of_class, OURS))
        return {
            **{published.heading(name): printed.get(name) for name in published.NOT_RUN},
            RECONSTRUCTION: printed.get(RECONSTRUCTION),
            "ours, reconstruction only": reconstruction and reconstruction.auroc,
            "ours, reconstruction only, fixed": nse_fixed(of_class),
            ANODM: printed.get(ANODM),
            "ours, joint map, chosen": best and best.auroc,
            "ours, joint map, fixed": fixed(at(of_class, JOINT, THROUGH_MEAN)),
            "ours, streaming, chosen": frozen and frozen.auroc,
            "ours, streaming, fixed": fixed(at(of_class, OURS, THROUGH_MEAN)),
        }

    lines = _by_class(rows, line)
    for one in lines:
        one["difference, reconstruction only"] = _minus(one["ours, reconstruction only"], one[RECONSTRUCTION])
        one["difference, chosen"] = _minus(one["ours, joint map, chosen"], one[ANODM])
        one["difference, fixed"] = _minus(one["ours, joint map, fixed"], one[ANODM])
    return lines


def table_2(rows: Sequence[Row]) -> list[Line]:
    """Return table 2: t-SNE of mu and of z, the paper's and ours, with the beta and alpha that were chosen."""

    def line(of_class: Sequence[Row], printed: Mapping[str, float | None]) -> Line:
        made: Line = {}
        for name, placing in (("mu", JOINT), ("z", JOINT_Z)):
            best = best_of(at(of_class, placing)) or (None, None, None)
            paper = f"AnoDM, {name}"
            made |= {f"{name}, paper": printed.get(paper)}
            made |= {f"{name}, paper's {what}": printed.get(f"{paper}, {what}") for what in ("beta", "alpha")}
            made |= dict(zip((f"{name}, chosen", f"{name}, beta", f"{name}, alpha"), best, strict=True))
            made[f"{name}, fixed"] = fixed(at(of_class, placing, THROUGH_MEAN))
        return made

    lines = _by_class(rows, line)
    for one in lines:
        for name in ("mu", "z"):
            one[f"{name}, difference"] = _minus(one[f"{name}, chosen"], one[f"{name}, paper"])
    return lines


def _by_class(rows: Sequence[Row], line: Callable[[Sequence[Row], Mapping[str, float | None]], Line]) -> list[Line]:
    """Return a line for each class of the paper's data sets, and their mean."""
    found: list[Line] = []
    printed: dict[tuple[str, str], dict[str, float | None]] = {}
    for one in published.read():
        known = printed.setdefault((one["dataset"], one["anomaly"]), {})
        known[one["method"]] = one["auroc"]
        known |= {f"{one['method']}, {what}": one[what] for what in ("beta", "alpha")}
        if one["method"].startswith(f"{ANODM}, ") and one["dataset"] not in NEAR:  # table 1 has not these data sets
            known[ANODM] = max(known.get(ANODM) or 0, one["auroc"])  # as it does elsewhere: the better of mu and z
    for dataset in dict.fromkeys(dataset for dataset, _ in printed):
        of_dataset: list[Line] = []
        for anomaly in (name for data, name in printed if data == dataset and name != MEAN):
            of_class = select(of_paper(rows), dataset=dataset, anomaly=anomaly)
            seeds = len({row.seed for row in of_class})
            named = {"dataset": dataset, "class": anomaly, "name": CLASSES[dataset].get(anomaly, "")}
            of_dataset.append({**named, "seeds": seeds or None, **line(of_class, printed[dataset, anomaly])})
        average: Line = {"dataset": dataset, "class": MEAN, "name": "", "seeds": None}
        for name, value in line([], printed[dataset, MEAN]).items():
            average[name] = value
            if value is None and not name.endswith(("beta", "alpha")) and name not in printed[dataset, MEAN]:
                average[name] = _mean(one[name] for one in of_dataset)
        found += [*of_dataset, average]
    return found


def goals(lines: Sequence[Line], rows: Sequence[Row]) -> list[Line]:
    """Return the goals beside what was reached; lines: table 1.

    Beside S with k = 1, alpha and beta chosen on the test points, stand that with k = 5, of one beta, of seed 0 with
    all its betas, and S with nothing chosen.
    """
    means = {one["dataset"]: one for one in lines if one["class"] == MEAN}
    found = []
    for dataset, goal in GOALS.items():
        ours = means[dataset]["ours, joint map, chosen"]
        said = f"S, joint map, chosen: at least {goal:.3f}"
        beside = {"ours, k = 5": _at_five(rows, dataset)}
        beside["ours, beta .01"] = _of_one_beta(rows, dataset)
        beside["ours, seed 0"] = _mean_best(select(of_paper(rows), seed=0), dataset, ALPHAS)
        beside["ours, fixed"] = means[dataset]["ours, joint map, fixed"]
        beside["ours, streaming, fixed"] = means[dataset]["ours, streaming, fixed"]
        found.append(_goal(dataset, said, ours, ours is not None and ours >= goal) | beside)
    for dataset, goal in NEAR.items():
        ours = means[dataset]["ours, reconstruction only"]
        said = f"reconstruction only: within {WITHIN} of {goal:.3f}"
        alone = dict.fromkeys(beside) | {"ours, beta .01": _of_one_beta(rows, dataset, (1.0,))}
        alone["ours, fixed"] = means[dataset]["ours, reconstruction only, fixed"]
        found.append(_goal(dataset, said, ours, ours is not None and abs(ours - goal) <= WITHIN) | alone)
    return found


def _at_five(rows: Sequence[Row], dataset: str) -> float | None:
    """Return mean S with k = 5, chosen as table 1 does."""
    return _mean_best(of_paper(rows), dataset, ALPHAS, k=5)


def _of_one_beta(rows: Sequence[Row], dataset: str, alphas: Sequence[float] = ALPHAS) -> float | None:
    """Return mean S of beta .01, the rest chosen as table 1 does."""
    return _mean_best(select(of_paper(rows), beta=FIXED_BETA), dataset, alphas)


def _mean_best(rows: Sequence[Row], dataset: str, alphas: Sequence[float], k: int = 1) -> float | None:
    best = []
    for anomaly in CLASSES[dataset]:
        of_class = select(rows, dataset=dataset, anomaly=anomaly)
        found = [one for placing in (JOINT, JOINT_Z) if (one := best_of(at(of_class, placing, k=k), alphas))]
        best.append(max(found).auroc if found else None)
    return _mean(best)


def _goal(dataset: str, goal: str, ours: float | None, met: bool) -> Line:
    said = "" if ours is None else "met" if met else "missed"
    return {"dataset": dataset, "goal": goal, "ours": ours, "reached": said}


def variants(rows: Sequence[Row], column: str, values: Sequence[Any]) -> list[Line]:
    """Return a line for each value of a column (split, network, share) with every ECG class, two choices, two placings.

    The other columns: by beat, TCN, all of the training part.
    """
    others = {"dataset": "arrhythmia", "split": SPLITS[0], "network": ENCODERS[0], "share": 1.0}
    found: list[Line] = []
    for value in values:
        of_value = select(rows, **(others | {column: value}))
        for placing, said in ((JOINT, "joint map"), (OURS, "streaming")):
            for choice in ("chosen", "fixed"):
                line: Line = {column: value, "placing": said, "choice": choice}
                for anomaly in CLASSES["arrhythmia"]:
                    of_class = select(of_value, anomaly=anomaly)
                    best = best_of(at(of_class, placing))
                    line[anomaly] = fixed(at(of_class, placing, THROUGH_MEAN))
                    if choice == "chosen":
                        line[anomaly] = best and best.auroc
                line[MEAN] = _mean(line[anomaly] for anomaly in CLASSES["arrhythmia"])
                found.append(line)
    return found


def terms(rows: Sequence[Row]) -> list[Line]:
    """Return of each class S, D alone, NSE alone and latent distance, as the paper's ROC figures name them.

    Beta, and alpha of S, are the best on the test points, but for the last two columns, where nothing is chosen.
    """
    found: list[Line] = []
    for dataset in dict.fromkeys(row.dataset for row in of_paper(rows)):
        of_dataset: list[Line] = []
        for anomaly in CLASSES[dataset]:
            of_class = select(of_paper(rows), dataset=dataset, anomaly=anomaly)
            at_one = {
                "S, joint map": best_of(at(of_class, JOINT)),
                "t-SNE alone": best_of(at(of_class, JOINT), (0.0,)),
                "t-SNE alone, streaming": best_of(at(of_class, OURS), (0.0,)),
                "reconstruction alone": best_of(at(of_class, JOINT), (1.0,)),
                "latent distance": best_of(at(of_class, LATENT), (0.0,)),
            }
            line: Line = {"dataset": dataset, "class": anomaly, **{n: c and c.auroc for n, c in at_one.items()}}
            for name, placing in (("S, joint map, fixed", JOINT), ("S, streaming, fixed", OURS)):
                line[name] = fixed(at(of_class, placing, THROUGH_MEAN))
            of_dataset.append(line)
        names = [name for name in of_dataset[0] if name not in ("dataset", "class")]
        average = {name: _mean(one[name] for one in of_dataset) for name in names}
        found += [*of_dataset, {"dataset": dataset, "class": MEAN, **average}]
    return found


def trained(rows: Iterable[Row]) -> list[Line]:
    """Return how cells were made: the options that make them, where, seconds of training and of the joint map."""
    found: dict[tuple[Any, ...], Line] = {}
    for row in rows:
        if row.placing == JOINT and row.k == 1 and (row.distance, row.nse) == (PLAIN, SAMPLED):
            of_cell = (row.dataset, row.split, row.network, row.beta, row.share, row.seed)
            key = (*of_cell, row.initial, row.precision, row.trained, row.machine)
            empty: Line = {"row": row, "classes": [], "train s": [], "map s": []}
            line = found.setdefault(key, empty)
            line["classes"].append(row.anomaly)
            line["train s"].append(row.seconds)
            line["map s"].append(row.map_seconds)
    return [_made(**line) for line in found.values()]


def _made(row: Row, classes: Sequence[str], **seconds: Sequence[float | None]) -> Line:
    line: Line = {"ecgwatch benchmark paper": options(row, classes), "weights at first": row.initial}
    line |= {"epochs + cool-down": row.trained, "machine": row.machine}
    for name, values in seconds.items():
        known = [value for value in values if value is not None]
        line[f"{name}, each"] = f"{min(known):.0f} to {max(known):.0f}" if known else ""
    return line


def options(row: Row, classes: Sequence[str]) -> str:
    """Return the options of `ecgwatch benchmark paper` that make a row's cell, and those of other classes like it."""
    said: dict[str, object] = {"dataset": row.dataset, "anomaly": " ".join(classes), "beta": f"{row.beta:g}"}
    said["seed"] = row.seed
    if row.dataset == "arrhythmia":
        said |= {"encoder": row.network, "split": row.split, "share": f"{row.share:g}"}
    if row.precision != Parameters.precision:
        said["precision"] = row.precision
    return " ".join([*(["--quick"] if row.quick else []), *(f"--{name} {value}" for name, value in said.items())])


def shares() -> tuple[float, ...]:
    """Return the shares of the training part that are compared, ascending."""
    return (*SHARES, 1.0)


def _mean(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known and len(known) == len(found) else None


def _minus(ours: float | None, paper: float | None) -> float | None:
    return None if ours is None or paper is None else ours - paper


def write_csv(file: Path, lines: Sequence[Line]) -> None:
    """Write lines, figures with four digits, what was not computed empty."""
    write_lines(file, lines[0], ([shown(name, value, 4) for name, value in line.items()] for line in lines))


def shown(column: str, value: object, digits: int = 3) -> str:
    """Return a value as tables show it: settings as short as they are, AUROC with so many digits, None as nothing."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    if column.endswith(("beta", "alpha", "share")):
        return f"{value:g}"
    return f"{value:+.{digits}f}" if "difference" in column else f"{value:.{digits}f}"


def markdown(lines: Sequence[Line]) -> str:
    """Return a Markdown table, or that there is nothing to show."""
    if not lines:
        return NOTHING
    head = list(lines[0])
    body = [[shown(name, value) for name, value in line.items()] for line in lines]
    rule = ["---:" if all(_is_number(line[name]) for line in lines) else "---" for name in head]
    return markdown_table([head, rule, *body])


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, int | float)
