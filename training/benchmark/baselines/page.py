"""Rows -> the page that stands beside them, with the published figures under their own protocol."""

import re
import shlex
from collections.abc import Sequence

import numpy as np

from training.benchmark import published
from training.benchmark.baselines import EPOCHS, gan_ad
from training.benchmark.baselines.experiment import (
    ANOMALIES,
    DATASET,
    SPLIT,
    TUNED_ON,
    TUNING_POINTS,
    UNVERIFIED,
    UNVERIFIED_BY_ANOTHER,
    Row,
    Tuning,
)
from training.benchmark.baselines.methods import METHODS
from training.benchmark.baselines.points import LEAST_EPOCHS, SAME
from training.text import markdown_table

OURS = "ecgwatch: S, 5,000 references"
PROTOCOL = "one class anomalous, by beat"
HEAD = f"""# Baselines

Written by `ecgwatch benchmark baselines`. ECG: the paper's segment (187 samples), split by beat (patients and, in
neighbouring beats, samples shared between training and test), each class once the anomaly and the others normal. All
methods have the same training points, the same held-out normal points and all test points; AUROC.

- Data: all normal beats of the training part. Where a method cannot take them all its row in
  [baselines.csv](baselines.csv) says how many it took (`train_points`, `note`).
- Tuning: at most three settings a method, each fitted once to {TUNING_POINTS:,} training beats of the task
  '{TUNED_ON} anomalous'; kept is the one that best tells held-out normal beats from abnormal ones of the training part
  ([baselines-tuning.csv](baselines-tuning.csv)). The choice uses labels, no test beats.
- Rows of saved runs (our own, reconstruction, those of the latents, VAE + OCSVM, UMAP): for each class and seed one
  beta-VAE (latent 20, beta .01, 50 + 6 epochs, all training beats), which all such rows of that class and seed share;
  rows of another seed are of other models. **Its numbers have seen test beats**: latents, epochs and units were
  settled by N against the rest of the same test part (docs/training.md; worth some .005 of S).
- Seeds: in the tables; of several, the mean.
- One-class SVM: the width is tuned, in units of scikit-learn's own (gamma 1 / (d variance)); nu is .01. The largest of
  three is kept, so a wider grid may do better still (isolation forest, UMAP's D, f-AnoGAN, GAN-AD and LSTM-VAE keep one
  at the end of their three too).
- Training: the epochs in `note`, batch 100, Adam 1e-3 (the GANs: rates of their own), the last tenth at a tenth of the
  rate; the DBN: scikit-learn's contrastive divergence at its rate of .1 throughout.
- {UNVERIFIED} (`*`): a loss curve ([baselines-curves.csv](baselines-curves.csv)) has fewer than {LEAST_EPOCHS} epochs,
  or, the cool-down left out, the halves of its last half differ by more than {SAME:.0%}. **One such class makes all
  classes of the method so**, since a curve that looks flat says little beside others of the same training that are
  not; where its own curve would have passed the CSV says '{UNVERIFIED_BY_ANOTHER}'. What was tried beyond:
  [choices.md](choices.md), "Baselines".
- Shortened (`°`): trained with `--most` on a part of the points, as the note says, so in a table of its own and not to
  be ranked with those that had all. A call without it (`ecgwatch benchmark baselines --method ...`) trains on all.
- Deep SVDD, LSTM-VAE, f-AnoGAN and GAN-AD are code of our own. PyOD (3.6) was tried and left out: its isolation forest
  and OCSVM are scikit-learn's, its Deep SVDD and its GANs keep no loss on held-out points, and its ALAD takes one batch
  per "epoch"; so nothing in it could be shown to have converged.
- Maps hold 5,000 references, as the paper's do, where the row does not say all; S joins NSE and D with alpha 1/2 on
  scaled terms, no label used.
- The paper's joint t-SNE map stands in [placement/tables.md](../placement/tables.md): on 5,000 test points and more of
  the same tasks and models, not on all.
- Seconds: wall clock on two cores shared with much other work, for orientation; without tuning, encoding and the
  training of the runs.
- GAN-AD: {gan_ad.SEARCH_STEPS} steps of Adam search the latents of every test point, where its authors' code takes up
  to 1,000: more cost as much more time. Half the score is the residual, half the discrimination, each in units of its
  standard deviation on the held-out points, no label used. Its curve is flat where the two networks are in balance,
  however well they do.
- Empty: not computed."""
COMMANDS = """## Commands

The rows come of these, whole or class by class (`--anomaly`); each goes on where it was stopped. Rows of saved runs
want the models that `ecgwatch benchmark paper --dataset arrhythmia` trains, in the same `--runs` (those of seed 0:
`ecgwatch benchmark placement` too). `ecgwatch benchmark baselines --tables-only` computes nothing and makes the tables
again."""
PUBLISHED = """## Published, not run

The paper's tables 1 and 2 (`training/benchmark/published.csv`). It prints no ECG figure of another method. **One class
normal**: AnoGAN and ADGAN were trained on the one class and the nine others are the anomalies: another task, not to be
ranked with the others.

The paper did not run them either: CapsNet's figures are those of Li et al. (2019), AnoGAN's and ADGAN's those of Deecke
et al. (2019). **CapsNet** is supervised: it learns from the labels of the classes, which nothing in the tables above is
trained on. **ADGAN** has no encoder and searches the latents of its generator for every test point, as GAN-AD does.
Neither was tried on ECG, so what they would cost or reach is not known. In AnoGAN's place stands f-AnoGAN, the same
with an encoder for the search."""


def page(rows: Sequence[Row], tuning: Sequence[Tuning]) -> str:
    """Return the page, Markdown."""
    short = [name for name in METHODS if any("°" in _cell(rows, name, one)[1] for one in ANOMALIES)]
    whole = [name for name in METHODS if name not in short]
    parts = [HEAD, f"## ECG\n\n{table(rows, whole)}\n\n{above(rows, whole)}"]
    if short:
        parts.append(f"## ECG, shortened\n\n{table(rows, short, beside_paper=False)}")
    parts.append(f"{COMMANDS}\n\n```\n{commands(rows)}\n```")
    parts.append(f"## Settings\n\n{settings(tuning)}")
    parts.append(f"{PUBLISHED}\n\n{not_run()}")
    return "\n\n".join(parts)


def table(rows: Sequence[Row], names: Sequence[str] = tuple(METHODS), beside_paper: bool = True) -> str:
    """Return method x anomaly, mean of the seeds; those with all anomalies first, the best mean on top."""
    cells = {name: [_cell(rows, name, one) for one in ANOMALIES] for name in names}
    means = {name: float(np.mean([value for value, _ in of_method])) for name, of_method in cells.items()}
    lines = [["method", "protocol", "seeds", *ANOMALIES, "mean", "seconds"]]
    lines += [["---"] * 3 + ["--:"] * (len(ANOMALIES) + 2)]
    for name in sorted(names, key=lambda one: -np.nan_to_num(means[one], nan=-1.0)):
        shown = ["" if np.isnan(value) else f"{_short(value)}{mark}" for value, mark in cells[name]]
        mean = "" if np.isnan(means[name]) else _short(means[name])
        seconds = sum(row.seconds or 0 for row in rows if row.method == name)
        seeds = " ".join(map(str, _seeds(_of(rows, name))))
        lines.append([name, PROTOCOL, seeds, *shown, mean, f"{seconds:,.0f}" if any(shown) else ""])
    of_paper = [one for one in published.read() if one["dataset"] == "arrhythmia" and beside_paper]
    for name in dict.fromkeys(one["method"] for one in of_paper):
        found = {one["anomaly"]: _short(one["auroc"]) for one in of_paper if one["method"] == name}
        said = f"{PROTOCOL}; published: alpha and beta chosen on the test set"
        lines.append([name, said, "", *(found[one] for one in (*ANOMALIES, "mean")), ""])
    return markdown_table(lines)


def above(rows: Sequence[Row], names: Sequence[str] = tuple(METHODS)) -> str:
    """Return which methods are above ecgwatch's own score, anomaly by anomaly and on the mean."""
    found = {name: [_cell(rows, name, one)[0] for one in ANOMALIES] for name in names}
    values = {name: [*of_method, float(np.mean(of_method))] for name, of_method in found.items()}
    lines = []
    for number, anomaly in enumerate((*ANOMALIES, "mean")):
        ours = values[OURS][number]
        others = [name for name in names if not name.startswith("ecgwatch") and values[name][number] > ours]
        lines.append(f"{anomaly}: {', '.join(others) or 'none'}")
    return f"Above '{OURS}' — {'; '.join(lines)}."


def _cell(rows: Sequence[Row], name: str, anomaly: str) -> tuple[float, str]:
    found = [row for row in _of(rows, name) if row.anomaly == anomaly]
    if not found:
        return float("nan"), ""
    mark = "*" if any(row.converged in (UNVERIFIED, UNVERIFIED_BY_ANOTHER) for row in found) else ""
    mark += "°" if any("shortened" in (row.note or "") for row in found) else ""
    return float(np.mean([row.auroc for row in found if row.auroc is not None])), mark


def _of(rows: Sequence[Row], name: str) -> list[Row]:
    """Return a method's rows that were computed."""
    return [row for row in rows if row.method == name and row.auroc is not None]


def _seeds(rows: Sequence[Row]) -> list[int]:
    return sorted({row.seed for row in rows})


def commands(rows: Sequence[Row]) -> str:
    """Return the commands that make the rows, one for all methods that have the same options."""
    methods: dict[str, list[str]] = {}
    for name in METHODS:
        if of_method := _of(rows, name):
            methods.setdefault(_options(of_method), []).append(name)
    lines = []
    for options, names in methods.items():
        chosen = [shlex.quote(name) for name in names]
        parts = [" ".join(chosen[start : start + 3]) for start in range(0, len(chosen), 3)]
        start = f"ecgwatch benchmark baselines{options} --method"
        lines.append(f"{start} {parts[0]}" if len(parts) == 1 else " \\\n    ".join([start, *parts]))
    return "\n".join(lines)


def _options(rows: Sequence[Row]) -> str:
    """Return the options of one method's rows that are not the default, each after a space."""
    said = ""
    if (seeds := _seeds(rows)) != [0]:
        said += f" --seed {' '.join(map(str, seeds))}"
    if most := max((row.train_points or 0 for row in rows if "shortened" in (row.note or "")), default=0):
        said += f" --most {most}"
    epochs = {int(found[1]) for row in rows if (found := re.search(r"\b(\d+) epochs\b", row.note or ""))}
    if METHODS[rows[0].method].trained and epochs - {EPOCHS}:
        said += f" --epochs {max(epochs)}"
    return said


def settings(tuning: Sequence[Tuning]) -> str:
    """Return the settings that were tried, with their AUROC on the tuning points."""
    lines = [["method", "setting", "AUROC on the tuning points"], ["---", "---", "--:"]]
    lines += [[one.method, f"{one.knob} {one.setting:g}", _short(one.auroc)] for one in tuning]
    return markdown_table(lines)


def not_run() -> str:
    """Return the paper's figures of the methods that were not run."""
    rows = [one for one in published.read() if one["method"] in published.NOT_RUN]
    classes = [*"0123456789", "mean"]
    lines = [["data", "method", "protocol", *classes], ["---"] * 3 + ["--:"] * len(classes)]
    for dataset, method in dict.fromkeys((one["dataset"], one["method"]) for one in rows):
        of_method = [one for one in rows if (one["dataset"], one["method"]) == (dataset, method)]
        found = {one["anomaly"]: _short(one["auroc"]) for one in of_method}
        lines.append([dataset, method, of_method[0]["protocol"], *(found.get(one, "") for one in classes)])
    return markdown_table(lines)


def published_rows() -> list[Row]:
    """Return the same as rows, for the CSV file; those of another protocol say so."""
    rows = []
    for one in published.read():
        if one["method"] in published.NOT_RUN and one["anomaly"] != "mean":
            said = f"published, not run; {one['protocol']}"
            said += ": not to be ranked with one class anomalous" if one["protocol"] == "one class normal" else ""
            rows.append(Row(one["dataset"], "by-image", one["anomaly"], one["method"], 0, one["auroc"], note=said))
    said = "not run; the paper prints no ECG figure of it"
    for name in published.NOT_RUN:
        rows += [Row(DATASET, SPLIT, anomaly, name, 0, note=said) for anomaly in ANOMALIES]
    return rows


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
