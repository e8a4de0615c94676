"""Rows and cells -> CSV files, one Markdown page, pictures, and one HTML file that holds all of it."""

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from training.benchmark.paper import choices, claims, figures, pictures, tables
from training.benchmark.paper.cells import ENCODERS, HEAT, JOINT, JOINT_Z, MAP_BETAS, MAPPED, SPLITS
from training.benchmark.paper.figures import MEAN, PLAIN, PRINTED, Cell, Row
from training.benchmark.paper.tables import Line
from training.benchmark.tables import LATENT
from training.parameters import CLASSES

Find = Callable[..., Cell | None]  # dataset, anomaly; beta, encoder -> what that cell saved, if it has come so far
TITLE = "The paper, cell by cell"
QUICK = """Shortened: 5 epochs on 6,000 beats or images, 2,000 references, at most 1,000 anomalies, one seed.
These models are not fully trained."""
PROTOCOL = """Written by `ecgwatch benchmark paper`. One class is anomalous in turn, the others are normal; table
3's networks; 20 epochs for MNIST and Fashion-MNIST, else 50; batch 100, Adam 1e-3; likelihood of the reconstruction
summed over samples, C from 0 to 25 nats over half of the training; ECG: 20 latents in units of their deviation and
6 epochs more at a tenth of the rate, images: 10 latents. Joint t-SNE of 5,000 training and 5,000 test points, more
where all anomalies and 2,500 normal points are more; perplexity 30, learning rate 200 as scikit-learn counts (800 in
openTSNE), 1,000 iterations; k = 1 where nothing else is said.

**chosen**: alpha and beta best for this class on the test points, as in the paper, NSE through a sampled z (section
3.5); it flatters. **fixed**: beta .01, both terms scaled by quantiles of held-out normal points, alpha a half, NSE
through the mean as served; no label is used. **joint map**: training and test points embedded together, as in the
paper; its figure depends on how many anomalies arrive together. **streaming**: each point placed alone in a frozen
map (docs/placement.md). What was not computed is empty, and so is a mean that lacks a class. ECG is split by beat,
as in the paper: **neighbouring beats of one patient share samples**, so this is easier than any use. Published
columns were not run; AnoGAN and ADGAN train on one class alone (one-class-normal), so they are not to be ranked
with the others. The paper's AnoDM of ECG and Small-NORB is the better of table 2's two. The CIFAR-10 files used
here are 99.8 % exact (docs/training.md)."""


class Section(NamedTuple):
    """A table and what stands above it."""

    title: str
    text: str
    lines: Sequence[Line]


class Page(NamedTuple):
    """What page and report show alike; figures: name -> caption, and the picture if there is one."""

    title: str
    sections: Sequence[Section]
    figures: Mapping[str, tuple[str, Path | None]]
    quick: bool
    command: str


def sections(rows: Sequence[Row]) -> list[Section]:
    """Return the tables of the page, goals first."""
    first = tables.table_1(rows)
    made = [
        Section("Goals", "Means over all classes, paper's way of choosing.", tables.goals(first, rows)),
        Section("Table 1", "The paper's table 1 and ours.", first),
        Section("Table 2", "t-SNE of the latent mean and of a sampled z.", tables.table_2(rows)),
        Section("The four scores", "What figures 4 and 12-18 draw; best alpha and beta each.", tables.terms(rows)),
    ]
    for title, column, values in (
        ("ECG: by beat, by time within a record, between patients", "split", SPLITS),
        ("ECG: encoders", "network", ENCODERS),
        ("ECG: training size", "share", tables.shares()),
    ):
        text = "Beta .01; seed 0." if column != "split" else "Between patients Q is left out: seven beats."
        chosen = rows if column == "split" else choices.select(rows, beta=choices.FIXED_BETA, seed=0)
        made.append(Section(title, text, tables.variants(chosen, column, values)))
    made.append(Section("How the cells were made", "No time: trained elsewhere, or in pieces.", tables.trained(rows)))
    verdict = [dict(verdict._asdict()) for verdict in claims.verdicts(rows)]
    text = (
        "By the rule beside each; cases are classes (and k). The margin is by how much a case holds, below 0 where not."
    )
    return [*made, Section("The paper's claims", text, verdict)]


def drawn(rows: Sequence[Row], find: Find) -> dict[str, tuple[str, Callable[[], Figure] | None]]:
    """Return of each figure its caption, and how to draw it; None where no cell of it is there."""
    found: dict[str, tuple[str, Callable[[], Figure] | None]] = {}

    def add(name: str, caption: str, panels: Mapping[str, object], draw: Callable[..., Figure]) -> None:
        found[name] = (caption, partial(draw, panels) if panels else None)

    for name, distance in (("2", PLAIN), ("8a", PRINTED), ("8b", MEAN)):
        of = HEAT if name == "2" else {key: HEAT[key] for key in ("fashion-mnist", "arrhythmia")}
        chosen = {d: choices.select(choices.main(rows), dataset=d, anomaly=a) for d, a in of.items()}
        kept = {f"{d}, {of[d]}": of_class for d, of_class in chosen.items() if choices.at(of_class, JOINT)}
        add(
            name,
            f"AUROC of S over alpha and beta, {distance} distance",
            kept,
            partial(pictures.heat, distance=distance),
        )
    add(
        "3",
        "MNIST, 7 anomalous: maps over beta",
        _maps(find, "mnist", "7", (0.01, 0.3, 1.0, 2.0, 4.0, 10.0), (JOINT,)),
        pictures.maps,
    )
    add("4", "Fashion-MNIST: four scores", _cells(find, "fashion-mnist", "1357"), pictures.roc)
    known = [row for row in rows if row.network in ENCODERS[1:]]
    found["5"] = ("ECG: encoders", partial(pictures.encoders, rows) if known else None)
    example = find("arrhythmia", "Q")
    ready = example if example and {JOINT, LATENT} <= set(example.ways) else None
    found["6"] = (
        "ECG, Q anomalous: reconstructions, map, ROC",
        partial(pictures.reconstructions, ready) if ready else None,
    )
    for number, dataset in enumerate(MAPPED, 9):  # in their order
        panels = _maps(find, dataset, MAPPED[dataset], MAP_BETAS, (JOINT, JOINT_Z))
        add(str(number), f"{dataset}, {MAPPED[dataset]} anomalous: maps of mu and of z", panels, pictures.maps)
    for number, dataset, encoder in (
        (12, "mnist", "tcn"),
        (13, "fashion-mnist", "tcn"),
        (14, "cifar-10", "tcn"),
        (15, "small-norb", "tcn"),
        (16, "arrhythmia", "cnn"),
        (17, "arrhythmia", "lstm"),
        (18, "arrhythmia", "tcn"),
    ):
        said = f", {encoder.upper()} encoder" if dataset == "arrhythmia" else ""
        curves = _cells(find, dataset, list(CLASSES.get(dataset, ())), encoder)
        add(str(number), f"{dataset}{said}: four scores", curves, pictures.roc)
    sizes = [row for row in rows if row.share < 1]
    found["size"] = ("ECG: S against training size", partial(pictures.training_size, rows) if sizes else None)
    return found


def _cells(find: Find, dataset: str, anomalies: Sequence[str], encoder: str = "tcn") -> dict[str, Cell]:
    known = {f"{dataset}, {a}": find(dataset, a, encoder=encoder) for a in anomalies}
    return {name: cell for name, cell in known.items() if cell and {JOINT, LATENT} <= set(cell.ways)}


def _maps(
    find: Find, dataset: str, anomaly: str, betas: Sequence[float], placings: Sequence[str]
) -> dict[str, tuple[Cell, str]]:
    panels = {}
    for placing in placings:
        for beta in betas:
            cell = find(dataset, anomaly, beta=beta)
            if cell and placing in cell.ways:
                panels[f"beta {beta:g}, {'z' if placing == JOINT_Z else 'mu'}"] = (cell, placing)
    return panels


def write(out: Path, rows: Sequence[Row], find: Find, quick: bool, command: str) -> str:
    """Write everything into a folder, and return the page's text.

    Pictures of cells that are not on this machine stay as they are, where another one has drawn them.
    """
    suffix = "-quick" if quick else ""
    figures.write_csv(out / f"cells{suffix}.csv", rows)
    made = sections(rows)
    for name, section in (("table-1", made[1]), ("table-2", made[2]), ("claims", made[-1])):
        tables.write_csv(out / f"{name}{suffix}.csv", section.lines)
    shown: dict[str, tuple[str, Path | None]] = {}
    for name, (caption, draw) in drawn(rows, find).items():
        file = out / f"figure-{name}{suffix}.png"
        if draw:
            pictures.save(file, draw())
        shown[name] = caption, file if file.exists() else None
    page = Page(TITLE + (" (shortened)" if quick else ""), made, shown, quick, command)
    text = _markdown(page)
    (out / f"paper{suffix}.md").write_text(text, encoding="utf-8")
    (out / f"report{suffix}.html").write_text(_html(page), encoding="utf-8")
    return text


def _markdown(page: Page) -> str:
    parts = [f"# {page.title}", *([f"**{QUICK}**"] if page.quick else []), PROTOCOL, f"    {page.command}"]
    *before, verdict = page.sections
    parts += [f"## {one.title}\n\n{one.text}\n\n{tables.markdown(one.lines)}" for one in before]
    parts.append("## Figures")
    for name, (caption, file) in page.figures.items():
        picture = f"\n\n![{caption}]({file.name})" if file else f" {tables.NOTHING}"
        parts.append(f"Figure {name}. {caption}.{picture}")
    parts.append(f"## {verdict.title}\n\n{verdict.text}\n\n{tables.markdown(verdict.lines)}")
    return "\n\n".join(parts) + "\n"


_STYLE = """body{font:15px/1.45 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;font-size:12px}td,th{border:1px solid #ddd;padding:.15rem .4rem;text-align:right}
td:first-child,th:first-child{text-align:left}div{overflow-x:auto}img{max-width:100%}pre{white-space:pre-wrap}
.quick{background:#ffe9c7;padding:.5rem}figure{margin:1rem 0}"""


def _html(page: Page) -> str:
    *before, verdict = page.sections
    mark = f'<p class="quick">{html.escape(QUICK)}</p>' if page.quick else ""
    paragraphs = "".join(f"<p>{html.escape(part.replace('**', ''))}</p>" for part in PROTOCOL.split("\n\n"))
    body = [f"<h1>{page.title}</h1>", mark, paragraphs, f"<pre>{html.escape(page.command)}</pre>"]
    body += map(_table, before)
    body.append("<h2>Figures</h2>")
    for name, (caption, file) in page.figures.items():
        picture = f" {tables.NOTHING}"
        if file:
            data = base64.b64encode(file.read_bytes()).decode("ascii")
            picture = f'<br><img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
        body.append(f"<figure>Figure {name}. {html.escape(caption)}.{picture}</figure>")
    body.append(_table(verdict))
    head = f'<meta charset="utf-8"><title>{page.title}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _table(section: Section) -> str:
    title, text = html.escape(section.title), html.escape(section.text)
    if not section.lines:
        return f"<h2>{title}</h2><p>{text}</p><p>{tables.NOTHING}</p>"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in section.lines[0])
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(tables.shown(name, value))}</td>" for name, value in line.items()) + "</tr>"
        for line in section.lines
    )
    return f"<h2>{title}</h2><p>{text}</p><div><table><tr>{head}</tr>{lines}</table></div>"
