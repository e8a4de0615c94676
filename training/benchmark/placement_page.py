"""What `ecgwatch benchmark placement` saved -> tables and pictures in a folder."""

from collections.abc import Sequence
from pathlib import Path

from training.benchmark import pictures, placement_tables
from training.benchmark.placement import FULL, QUICK, Experiment
from training.benchmark.rows import read_csv, write_csv
from training.text import write_page


def write(out: Path, saved: Sequence[placement_tables.Saved], order: Sequence[Experiment], quick: bool) -> str:
    """Write rows, page and pictures, beside those of models that are on another machine; return the page.

    order: of the rows.
    """
    made_rows, made_differences = [], []
    for one in saved:
        of_one = placement_tables.compare(one)
        made_rows += of_one[0]
        made_differences += of_one[1]
    suffix = "-quick" if quick else ""
    files = [out / f"{name}{suffix}.csv" for name in ("auroc", "differences")]
    rows = placement_tables.joined(made_rows, read_csv(files[0], placement_tables.Row), order)
    differences = placement_tables.joined(made_differences, read_csv(files[1], placement_tables.Difference), order)
    write_csv(files[0], rows)
    write_csv(files[1], differences)
    parts = [placement_tables.PROTOCOL_QUICK if quick else placement_tables.PROTOCOL]
    for figure, name in placement_tables.FIGURES.items():
        parts.append(f"## {name}\n\n{placement_tables.markdown(rows, figure)}")
        pictures.ways(out / f"{figure}{suffix}.png", rows, figure, name)
    compared = placement_tables.comparison(differences, (QUICK if quick else FULL).references)
    parts.append(f"## Virtual peers against the joint map and latent neighbours\n\n{compared}")
    parts.append(f"## Alpha without labels\n\n{placement_tables.alpha_gap(rows)}")
    parts.append(f"## Training\n\n{placement_tables.training(rows)}")
    for one in saved:
        if one.experiment.seed == 0 and {placement_tables.JOINT, placement_tables.OURS} <= set(one.ways):
            pictures.maps(out / f"maps-{one.experiment.name}.png", one.ways, one.abnormal)
    return write_page(out / f"tables{suffix}.md", parts)
