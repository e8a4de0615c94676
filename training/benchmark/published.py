"""The paper's tables 1 and 2 (AnoDM, under review for ICLR 2020), as `published.csv` has them."""

import csv
from importlib.resources import files
from typing import Any

# figures that other methods have there, and that are not run here
NOT_RUN = ("CapsNet, prediction probability", "CapsNet, reconstruction error", "AnoGAN", "ADGAN")
ONE_CLASS_NORMAL = ("AnoGAN", "ADGAN")  # trained on the one class: another task, not to be ranked with the others


def heading(method: str) -> str:
    """Return what a table calls a method whose figures are the paper's."""
    return f"{method} (published{', one class normal' if method in ONE_CLASS_NORMAL else ''})"


def read() -> list[dict[str, Any]]:
    """Return a line for each figure: auroc, beta and alpha are numbers, what is not printed None."""
    text = files("training.benchmark").joinpath("published.csv").read_text(encoding="utf-8")
    return [
        {name: float(v) if name in ("auroc", "beta", "alpha") and v else v or None for name, v in line.items()}
        for line in csv.DictReader(text.splitlines())
    ]
