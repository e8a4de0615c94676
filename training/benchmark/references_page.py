"""Which references, how many, at what cost: chosen and timed, then written as a page with its picture."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ecgwatch.bundle import Bundle
from ecgwatch.errors import ConfigError
from ecgwatch.scorer import Model
from training.benchmark import pictures, references
from training.datasets.read import read
from training.parameters import Parameters
from training.text import write_atomically, write_page


def write(bundle: Bundle, data: Path, out: Path, costs_only: bool) -> str:
    """Choose and time, write what was found, page and picture into a folder, and return the page.

    costs_only: keep the choices that are there. Raises ConfigError where there are none.
    """
    _, beats, split = read(Parameters(**bundle.manifest.training["parameters"]), data)
    file = out / "references.json"
    if costs_only:
        if not file.exists():
            raise ConfigError(f"{file} is missing: run without --costs-only first")
        choices = [references.Choice(**one) for one in json.loads(file.read_text(encoding="utf-8"))["choices"]]
    else:
        choices = references.cross_validate(bundle, beats, split)
    latents = Model(bundle.model, "cpu", 0).run(beats.x[split.train])[0]
    found = references.costs(
        bundle, np.ascontiguousarray(beats.x[split.calibration][: max(references.BATCHES)]), latents
    )
    transform = references.transform_us(latents)
    out.mkdir(parents=True, exist_ok=True)
    rows = {"choices": [asdict(one) for one in choices], "costs": [asdict(one) for one in found]}
    write_atomically(file, json.dumps({**rows, "transform_us": transform}, indent=1) + "\n")
    pictures.reference_curve(out / "references.png", choices, found)
    alone = next(one for one in found if (one.count, one.batch) == (5000, 1))
    return write_page(
        out / "references.md",
        [
            "# References: how many, which, at what cost",
            "Written by `ecgwatch benchmark references`; docs/placement.md.",
            references.tables(choices, found),
            f"The default, by patient: {references.chosen(choices):,} references.",
            f"One beat among 5,000 references: transform {transform:,.0f} us of CPU, map "
            f"{alone.whole_us - alone.bare_us:.0f} us.",
        ],
    )
