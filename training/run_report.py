"""A finished run -> the pictures and the page that `training.report` draws."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import torch

from ecgwatch.beats import Bedside, ImageContract, bedside_parts
from ecgwatch.bundle import Bundle
from ecgwatch.scorer import Model
from training import report
from training.datasets.dataset import Dataset, Split
from training.evaluate import TERMS, Predictions, evaluated
from training.models import Serving
from training.pipeline import Result, Run
from training.train import checkpoint_losses

EXAMPLES = {"N": 6}  # of each class; the others get two
DRAWN_NORMAL, DRAWN_ABNORMAL = 1500, 300  # of the evaluation in the picture of the map, the latter per class
BEATS_ONLY = ("contract", "encoder", "keep_mixed_windows", "rr_window")  # parameters that say nothing of images


def write(run: Run, result: Result) -> Path:
    """Write the run's pictures and `report.html`; return the page."""
    of_bundle = compose(run, result.bundle, result.predictions)
    losses = checkpoint_losses(run.folder / "checkpoint.safetensors")
    return report.write(run.folder, replace(of_bundle, losses=losses, examples=_examples(run.data, run.split, result)))


def compose(run: Run, bundle: Bundle, predictions: Predictions) -> report.Report:
    """Return what a report shows of a bundle: all but the training's losses and the examples."""
    data, split = run.data, run.split
    of_images = isinstance(bundle.manifest.contract, ImageContract)
    words = report.IMAGES if of_images else report.BEDSIDE if isinstance(run.contract, Bedside) else report.BEATS
    with np.load(run.folder / "map.npz", allow_pickle=False) as saved:
        owners = (data.classes if of_images else data.records)[saved["rows"]]
    shown = {k: v for k, v in msgspec.to_builtins(run.parameters).items() if not (of_images and k in BEATS_ONLY)}
    rows, kinds = _drawn(data, split)
    encoder = Model(bundle.model, provider="cpu", threads=0)
    predictions = evaluated(predictions, split)  # the area under the curves is then that of the tables
    return report.Report(
        words=words,
        names=data.kinds,
        title=bundle.manifest.name,
        protocol=bundle.manifest.protocol["text"],
        losses=(),
        examples=(),
        positions=bundle.map.positions,
        owners=owners,
        placed=bundle.map.place(encoder.run(data.x[rows])[0]),
        kinds=kinds,
        terms={term: getattr(predictions, term) for term in TERMS},
        abnormal=~predictions.normal,
        tables=_tables(bundle.manifest.figures, words.one),
        parameters=shown,
        versions=bundle.manifest.versions,
    )


def _drawn(data: Dataset, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Test beats or images for the picture: a random draw of each class, normal ones first."""
    rng = np.random.default_rng(0)
    of_class = {kind: rng.permutation(split.test[data.classes[split.test] == kind]) for kind in data.kinds}
    count = {kind: DRAWN_NORMAL // len(split.normal) if kind in split.normal else DRAWN_ABNORMAL for kind in of_class}
    ordered = sorted(of_class, key=lambda kind: kind not in split.normal)
    chosen = {kind: of_class[kind][: count[kind]] for kind in ordered}
    return np.concatenate(list(chosen.values())), np.repeat(list(chosen), [len(rows) for rows in chosen.values()])


@torch.no_grad()
def _examples(data: Dataset, split: Split, result: Result) -> list[report.Example]:
    """Random test beats or images of each class with their reconstructions through the latent mean."""
    contract = result.bundle.manifest.contract
    shape: tuple[int, ...] = (-1,)
    if isinstance(contract, ImageContract):
        shape = (contract.channels, contract.height, contract.width)[contract.channels == 1 :]
    rng = np.random.default_rng(0)
    examples = []
    for kind in data.kinds:
        rows = split.test[data.classes[split.test] == kind]
        x = data.x[rng.permutation(rows)[: EXAMPLES.get(kind, 2)]]
        if len(x):
            given = torch.from_numpy(x)
            mean, nse = Serving(result.model)(given)
            y = result.model.draw(mean, given).numpy()
            if isinstance(contract, Bedside):
                x, y = bedside_parts(x)[0], bedside_parts(y)[0]
            pairs = zip(x.reshape(len(x), *shape), y.reshape(len(y), *shape), nse.tolist(), strict=True)
            examples += [report.Example(kind, *parts) for parts in pairs]
    return examples


def _tables(figures: dict, one: str) -> list[report.Table]:
    columns = ("NSE", "D", "S", f"normal {one}s", f"abnormal {one}s")
    keys = ("nse", "distance", "score", "normal", "abnormal")
    tables = [
        report.Table(
            "AUROC",
            "normal against the rest",
            (f"{one}s", *columns),
            [(n, *(r[k] for k in keys)) for n, r in figures["auroc"].items()],
        )
    ]
    if "per_record" in figures:
        rows = [(n, *(r[k] for k in keys)) for n, r in figures["per_record"].items()]
        tables.append(
            report.Table(
                "AUROC per record", "empty where a record has one kind of beat only", ("record", *columns), rows
            )
        )
    if "alerts" in figures:
        kinds = list(figures["alerts"][0]["sensitivity"]) if figures["alerts"] else []
        rows = [
            (f"{r['target_per_hour']:g}", r["false_alerts_per_hour"], *(r["sensitivity"][kind] for kind in kinds))
            for r in figures["alerts"]
        ]
        heads = ("target per hour", "realised on the test records", *(f"sensitivity to {kind}" for kind in kinds))
        tables.append(
            report.Table("False alerts per hour of normal rhythm", "threshold from held-out normal beats", heads, rows)
        )
    return tables
