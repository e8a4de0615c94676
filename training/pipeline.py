"""From a data set and parameters to a bundle, step by step; each step leaves its result in the run folder."""

import datetime
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from ecgwatch import bundle as bundles
from ecgwatch.beats import Bedside, Contract, ImageContract
from ecgwatch.bundle import FORMAT_VERSION, Bundle, Manifest, MapSettings
from ecgwatch.scorer import Model
from ecgwatch.tsne_map import ReferenceMap
from training import calibrate, evaluate, export, reference_map, score_graph
from training.datasets.dataset import Dataset, Split
from training.models import BetaVAE, unit_latents
from training.parameters import Parameters
from training.run_folder import open_run, versions
from training.text import write_atomically
from training.train import fit

PROTOCOLS = {
    "inter-patient": (
        "de Chazal's split: trained on normal beats of DS1 records, scaling and thresholds from normal beats of DS1 "
        "records that the scoring model had not seen, tested on DS2, of which no patient trains or calibrates; paced "
        "records and 201 (the same person as 202) left out; "
        "AUROC over beats after the first 5 minutes"
    ),
    "by-beat": (
        "the paper's 80/20 split by beat over all 48 records, stratified by class; training and test share patients, "
        "and neighbouring segments share samples; scaling and thresholds from a tenth of the training part"
    ),
    "by-image": (
        "trained on nine tenths of the normal classes' official training images, scaling from the other tenth; tested "
        "on all official test images; no image of another class trains or sets a scale"
    ),
}


@dataclass(frozen=True)
class Run:
    """What a run is made of: parameters, what `training.datasets.read.read` has for them, and the run folder."""

    parameters: Parameters
    contract: Contract | Bedside | ImageContract
    data: Dataset
    split: Split
    folder: Path


@dataclass(frozen=True)
class Result:
    """What a run ends with."""

    model: BetaVAE
    bundle: Bundle
    predictions: evaluate.Predictions


def train(run: Run, on: torch.device, card: Callable[[Manifest], str]) -> Result:
    """Train, export, map, calibrate, evaluate; write `bundle/`, `predictions.npz` and `figures.json` into the folder.

    card: makes the model card from the manifest. Steps whose result is there already are taken from there when they
    are slow (training, t-SNE).
    """
    model = _trained(run, run.split.train, run.data.x[run.split.calibration], run.folder, on)
    exported = export.to_onnx(model, run.contract.length)
    compared = _compared(run)
    parity = export.check_parity(model, exported, compared)
    print(f"torch and onnxruntime agree to {parity:.1g} on {len(compared)} {run.contract.inputs}")
    made = {"export_difference": parity, "device": str(on)}
    return Result(model, *complete(run, exported, made, by_others(run, on), card))


def _trained(run: Run, rows: np.ndarray, watched: np.ndarray, folder: Path, on: torch.device) -> BetaVAE:
    open_run(folder, run.parameters)
    model = fit(run.data.training(rows), watched, run.parameters, folder, on)
    if run.parameters.unit_latents:
        unit_latents(model, torch.from_numpy(run.data.x[rows]))
    return model


def _compared(run: Run) -> np.ndarray:
    return run.data.x[run.split.calibration][: export.PARITY_INPUTS]


def by_others(run: Run, on: torch.device) -> tuple[np.ndarray, np.ndarray] | None:
    """Return NSE and D of what calibrates, float64[n], each from a model of the other folds; None without folds.

    So every training patient calibrates too, as the stranger that he is to that model. Each fold's model is trained in
    `fold-K` of the folder.
    """
    data, split = run.data, run.split
    if split.folds is None:
        return None
    nse, distance = np.empty(len(split.folds)), np.empty(len(split.folds))
    numbers = np.unique(split.folds)
    for place, number in enumerate(numbers, 1):
        print(f"scaling and thresholds: fold {place} of {len(numbers)}, judged by a model of the others")
        here, within = split.folds == number, run.folder / f"fold-{number}"
        judged = split.calibration[here]
        others = split.train[~np.isin(data.records[split.train], data.records[judged])]
        model = _trained(run, others, data.x[judged], within, on)
        encoder = Model(export.to_onnx(model, data.x.shape[1]), provider="cpu", threads=0)
        the_map = _map(replace(run, split=replace(split, train=others), folder=within), encoder)
        nse[here], distance[here] = _terms(encoder, the_map, data.x[judged])
    return nse, distance


def complete(
    run: Run,
    exported: bytes,
    made: dict[str, Any],
    held_out: tuple[np.ndarray, np.ndarray] | None,
    card: Callable[[Manifest], str],
) -> tuple[Bundle, evaluate.Predictions]:
    """Map, calibrate and evaluate a trained encoder; everything after training. Files and card as for `train`.

    exported: ONNX, x -> mean, nse; made: what the manifest says of how it was trained, beside the parameters; held_out:
    NSE and D of what calibrates, where this model is not to judge it (`by_others`).
    """
    parameters, data, split, inputs = run.parameters, run.data, run.split, run.contract.inputs
    compared = _compared(run)
    encoder = Model(exported, provider="cpu", threads=0)
    the_map = _map(run, encoder)
    nse, distance = held_out or _terms(encoder, the_map, data.x[split.calibration])
    log = parameters.log_terms
    scales = calibrate.scale(nse, log), calibrate.scale(distance, log, parameters.most_distance)
    whole = score_graph.append_map(exported, the_map, scales, calibrate.ALPHA)
    map_parity = export.check_map(whole, the_map, scales, calibrate.ALPHA, compared)
    print(f"numpy and onnxruntime agree on the map to {map_parity:.1g} on {len(compared)} {inputs}")
    normal_hours = _calibration_hours(data, split)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=f"{parameters.dataset}-{parameters.split}-{''.join(parameters.normal)}-seed{parameters.seed}",
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        files={},
        contract=run.contract,
        latent=parameters.latent,
        alpha=calibrate.ALPHA,
        k=1,
        map=MapSettings(len(the_map.latents), parameters.perplexity, len(the_map.peer_distances), the_map.mean_z),
        nse=scales[0],
        distance=scales[1],
        thresholds=calibrate.thresholds(nse, distance, scales, normal_hours),
        training={
            "parameters": asdict(parameters),
            "records": sorted(set(data.records[split.train].tolist())),
            inputs: len(split.train),
            "calibration_records": sorted(set(data.records[split.calibration].tolist())),
            f"calibration_{inputs}": len(split.calibration),
            **({"calibration_hours": round(normal_hours, 3)} if data.hours else {}),
            "map_difference": map_parity,
            **made,
        },
        protocol={"split": split.name, "text": "; ".join(filter(None, (PROTOCOLS[split.name], data.note)))},
        figures={},
        versions=versions(),
    )
    draft = bundles.save(run.folder / "draft", manifest, whole, the_map, "")  # nobody serves one without its figures
    print(f"scoring {len(split.test)} test {inputs}")
    predictions = evaluate.predict(draft, data, split.test, split.normal)
    predictions.save(run.folder / "predictions.npz")
    figures = evaluate.figures(predictions, split, draft, data)
    write_atomically(run.folder / "figures.json", json.dumps(figures, indent=2))
    finished = finish(run.folder / "bundle", draft, figures, card)
    shutil.rmtree(run.folder / "draft")
    return finished, predictions


def finish(folder: Path, draft: Bundle, figures: dict[str, Any], card: Callable[[Manifest], str]) -> Bundle:
    """Write a bundle again with its figures and its card."""
    manifest = msgspec.structs.replace(draft.manifest, figures=figures)
    return bundles.save(folder, manifest, draft.model, draft.map, card(manifest))


def _map(run: Run, encoder: Model) -> ReferenceMap:
    """Fit the map, or take it from the folder where these latents were mapped before."""
    parameters, data, split = run.parameters, run.data, run.split
    chosen = split.train[reference_map.choose(data.records[split.train], parameters.references, parameters.seed)]
    latents = _encode(encoder, data.x[chosen])[0]
    file = run.folder / "map.npz"
    if file.exists():
        with np.load(file, allow_pickle=False) as saved:
            if np.array_equal(saved["latents"], latents):
                return ReferenceMap(
                    saved["latents"],
                    saved["positions"],
                    reference_map.peer_distances(latents, parameters.peers),
                    parameters.perplexity,
                    float(saved["mean_z"]),
                )
    print(f"t-SNE of the latents of {len(latents)} references")
    made = reference_map.fit(latents, parameters.perplexity, parameters.seed, parameters.peers)
    partial = file.with_suffix(".part.npz")
    np.savez_compressed(partial, latents=made.latents, positions=made.positions, mean_z=made.mean_z, rows=chosen)
    partial.replace(file)
    return made


def _terms(encoder: Model, the_map: ReferenceMap, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    latents, nse = _encode(encoder, x)
    return nse, the_map.distance(latents)


def _encode(encoder: Model, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    latents, nse = encoder.run(x)
    return latents, nse.astype(np.float64)


def _calibration_hours(data: Dataset, split: Split) -> float:
    """Hours of normal rhythm that the calibration beats cover; of images 0."""
    if not data.hours:
        return 0.0
    here = np.zeros(len(data), bool)
    here[split.calibration] = True
    return sum(evaluate.hours_of_normal_rhythm(data.records, here, data.hours).values())
