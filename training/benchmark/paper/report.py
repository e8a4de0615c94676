"""Rows and cells -> CSV files, one Markdown page, pictures, and one HTML file that holds all of it."""

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from training.benchmark.paper import choices, claims, pictures, results, tables
from training.benchmark.paper.cells import ALL_BETAS, ENCODERS, HEAT, JOINT, JOINT_Z, MAP_BETAS, MAPPED, SPLITS
from training.benchmark.paper.results import PER_PAIR, PLAIN, PRINTED, Cell, Row
from training.benchmark.paper.tables import Line
from training.parameters import CLASSES
from training.text import write_atomically

Find = Callable[..., Cell | None]  # dataset, anomaly; beta, encoder -> what that cell saved, if it has come so far
TITLE = "The paper, cell by cell"
EXACT = "the project's own figures are of files that are 99.8 % exact"
CURVES = "beta .01, seed 0; alpha chosen on the test points"
QUICK = """Shortened: 5 epochs on 6,000 beats or images, 2,000 references, at most 1,000 anomalies, one seed.
These models are not fully trained, and no goal is judged by them."""
QUICK_LINE = "shortened: 5 epochs, models not fully trained"
_FULL_TRAINING = """20 epochs for MNIST and Fashion-MNIST, else 50; ECG 6 more at a tenth of the rate"""
_FULL_MAPS = """5,000 training and 5,000 test points, more where all anomalies and 2,500 normal points are more"""
_QUICK_TRAINING = """4 epochs and 1 more at a tenth of the rate, of 6,000 beats or images"""
_QUICK_MAPS = """2,000 training and 2,000 test points, at most 1,000 of them anomalies"""
_PROTOCOL = """Written by `ecgwatch benchmark paper`. One class is anomalous in turn, the others are normal; table
3's networks; {training}; batch 100, Adam 1e-3; products in float32 (convolutions on a GPU in TF32), or in bfloat16
where "How the cells were made" says so; likelihood of the reconstruction (squared error) summed over
samples, C from 0 to 25 nats over half of the training; ECG: 20 latents in units of their deviation, images: 10
latents; the weights before training are torch's or Glorot's ("How the cells were made" says which). Joint t-SNE of
{maps}; perplexity 30, learning rate 200 as scikit-learn counts (800 in openTSNE), 1,000 iterations; k = 1 where
nothing else is said.

**chosen**: alpha and beta best for this class on the test points, as in the paper, NSE through a sampled z (section
3.5); it flatters. **fixed**: nothing is chosen here: beta .01, both terms scaled by quantiles of held-out normal
points (D of the joint map: of its references among each other), alpha a half, NSE through the mean as served. No
label is used, but .01 is the beta that the paper found on its test set, and what it leaves open (first weights, rate
of the map, ECG's latent size, units and cool-down) was settled with these test points in view. **joint map**:
training and test points embedded together, as in the paper; its figure depends on how many anomalies arrive together.
**streaming**: each point placed alone in a frozen map (docs/placement.md). What was not computed is empty, and so is
a mean that lacks a class. Where several seeds were computed a beta that has fewer is not chosen (of ECG .01 alone has
three); "seed 0" chooses among all betas of that one. ECG is split by beat, as in the paper: **neighbouring beats of
one patient share samples**, so this is easier than any use. Published columns were not run; AnoGAN and ADGAN train on
one class alone (one-class-normal), so they are not to be ranked with the others. The paper's AnoDM of ECG and
Small-NORB is the better of table 2's two. CIFAR-10: {exact} (docs/training.md)."""


def protocol(quick: bool) -> str:
    """Return how all figures of the page were made."""
    training, maps = (_QUICK_TRAINING, _QUICK_MAPS) if quick else (_FULL_TRAINING, _FULL_MAPS)
    return _PROTOCOL.format(training=training, maps=maps, exact=EXACT)


class Section(NamedTuple):
    """A table and what stands above it."""

    title: str
    text: str
    lines: Sequence[Line]


class Drawing(NamedTuple):
    """A figure of the paper: caption, how to draw it (None: no cell of it is here), whether all its cells are here."""

    caption: str
    draw: Callable[[], Figure] | None
    whole: bool = True


class Page(NamedTuple):
    """What page and report show alike; figures: name -> caption, and the picture if there is one."""

    title: str
    sections: Sequence[Section]
    figures: Mapping[str, tuple[str, Path | None]]
    quick: bool
    command: str


def sections(rows: Sequence[Row], quick: bool) -> dict[str, Section]:
    """Return the tables of the page, goals first, by the name of their CSV file; quick: without goals."""
    first = tables.table_1(rows)
    cifar = f"CIFAR-10: {EXACT}."
    text = f"Means over all classes, paper's way of choosing; beside it nothing chosen (fixed). {cifar}"
    made = {} if quick else {"goals": Section("Goals", text, tables.goals(first, rows))}
    made["table-1"] = Section("Table 1", f"The paper's table 1 and ours. {cifar}", first)
    text = f"t-SNE of the latent mean and of a sampled z. {cifar}"
    made["table-2"] = Section("Table 2", text, tables.table_2(rows))
    text = (
        "Best alpha and beta for each score, mean over seeds; fixed: nothing chosen. Figures 4 and 12-18 draw beta .01 "
        f"and seed 0 alone. {cifar}"
    )
    made["terms"] = Section("The four scores", text, tables.terms(rows))
    for title, column, values in (
        ("ECG: by beat, by time within a record, between patients", "split", SPLITS),
        ("ECG: encoders", "network", ENCODERS),
        ("ECG: training size", "share", tables.shares()),
    ):
        text = f"Beta .01; seed 0.{' Between patients Q is left out: seven beats.' if column == 'split' else ''}"
        chosen = choices.select(rows, beta=choices.FIXED_BETA, seed=0)
        made[column] = Section(title, text, tables.variants(chosen, column, values))
    text = "Options make the cells again. No time: trained elsewhere, or in pieces."
    made["trained"] = Section("How the cells were made", text, tables.trained(rows))
    verdict = [dict(verdict._asdict()) for verdict in claims.verdicts(rows)]
    text = (
        f"By the rule beside each; cases are classes (and k). A claim holds where at least {claims.MOST:.0%} of its "
        f"cases do (all, where the rule says all five), in part where at least {claims.HALF:.0%} do. The margin is by "
        f"how much a case holds, below 0 where not. {cifar}"
    )
    return {**made, "claims": Section("The paper's claims", text, verdict)}


def drawn(rows: Sequence[Row], find: Find) -> dict[str, Drawing]:
    """Return the figures of the paper by number, and that of AUROC against training size."""
    found: dict[str, Drawing] = {}
    for name, distance in (("2", PLAIN), ("8", PRINTED), ("8-mean", PER_PAIR)):
        of = HEAT if name == "2" else {key: HEAT[key] for key in ("fashion-mnist", "arrhythmia")}
        first = choices.select(choices.of_paper(rows), seed=0)  # the one that all betas have
        chosen = {d: choices.select(first, dataset=d, anomaly=a) for d, a in of.items()}
        there = {d: of_class for d, of_class in chosen.items() if choices.at(of_class, JOINT, distance=distance)}
        kept = {_titled(d, of[d]): of_class for d, of_class in there.items()}
        counted = "; ".join(
            f"{_titled(d, of[d])}: {len({r.beta for r in there.get(d, ())})} of {len(ALL_BETAS)}" for d in of
        )
        caption = f"AUROC of S over alpha and beta, seed 0, distance {distance}; betas computed: {counted}"
        found[name] = Drawing(caption, partial(pictures.heat, kept, distance=distance) if kept else None)
    wanted = _over_beta("mnist", "7", (0.01, 0.3, 1.0, 2.0, 4.0, 10.0), (JOINT,))
    found["3"] = _drawing("MNIST, 7 anomalous: maps over beta", wanted, rows, find, pictures.maps)
    wanted = _over_classes("fashion-mnist", "1357")
    found["4"] = _drawing(f"Fashion-MNIST: four scores ({CURVES})", wanted, rows, find, pictures.roc)
    known = {row.network for row in rows}
    caption = f"ECG: encoders ({CURVES}){_lacking([one.upper() for one in ENCODERS if one not in known])}"
    found["5"] = Drawing(caption, partial(pictures.encoders, rows) if known & set(ENCODERS[1:]) else None)
    example = find("arrhythmia", "Q")
    found["6"] = Drawing(
        "ECG, Q anomalous: reconstructions, map, ROC", partial(pictures.reconstructions, example) if example else None
    )
    for number, dataset in enumerate(MAPPED, 9):  # in their order
        wanted = _over_beta(dataset, MAPPED[dataset], MAP_BETAS, (JOINT, JOINT_Z))
        caption = f"{dataset}, {MAPPED[dataset]} anomalous: maps of mu and of z"
        found[str(number)] = _drawing(caption, wanted, rows, find, pictures.maps)
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
        wanted = _over_classes(dataset, list(CLASSES.get(dataset, ())), encoder)
        said += f" ({EXACT})" if dataset == "cifar-10" else ""
        caption = f"{dataset}{said}: four scores ({CURVES})"
        found[str(number)] = _drawing(caption, wanted, rows, find, pictures.roc)
    sizes = [row for row in rows if row.share < 1]
    caption = f"ECG: S against training size ({CURVES})"
    found["size"] = Drawing(caption, partial(pictures.training_size, rows) if sizes else None)
    return found


def _titled(dataset: str, anomaly: str) -> str:
    return f"{dataset}, {anomaly}{' (files 99.8 % exact)' if dataset == 'cifar-10' else ''}"


class Panel(NamedTuple):
    """A panel of a figure: of which cell, seed 0, and which of its maps."""

    dataset: str
    anomaly: str
    beta: float = choices.FIXED_BETA
    encoder: str = ENCODERS[0]
    placing: str = JOINT


def _over_classes(dataset: str, anomalies: Sequence[str], encoder: str = ENCODERS[0]) -> dict[str, Panel]:
    return {_titled(dataset, one): Panel(dataset, one, encoder=encoder) for one in anomalies}


def _over_beta(dataset: str, anomaly: str, betas: Sequence[float], placings: Sequence[str]) -> dict[str, Panel]:
    return {
        f"beta {beta:g}, {'z' if placing == JOINT_Z else 'mu'}": Panel(dataset, anomaly, beta, placing=placing)
        for placing in placings
        for beta in betas
    }


def _drawing(
    caption: str, wanted: Mapping[str, Panel], rows: Sequence[Row], find: Find, draw: Callable[..., Figure]
) -> Drawing:
    """Return a figure of the panels whose cells are here; its caption says which were computed nowhere."""
    here, whole, empty = {}, True, []
    for name, panel in wanted.items():
        if cell := find(panel.dataset, panel.anomaly, beta=panel.beta, encoder=panel.encoder):
            here[name] = (cell, panel.placing)
        elif _computed(panel, rows):
            whole = False
        else:
            empty.append(name)
    lacking = "" if len(empty) == len(wanted) else _lacking(empty)
    elsewhere = "" if whole else "; some cells are on another machine, which drew what is here"
    return Drawing(caption + lacking + elsewhere, partial(draw, here) if here else None, whole)


def _computed(panel: Panel, rows: Sequence[Row]) -> bool:
    network = panel.encoder if panel.dataset == "arrhythmia" else "table 3"
    which = {"dataset": panel.dataset, "anomaly": panel.anomaly, "beta": panel.beta, "network": network}
    splits = ("by-beat", "by-image")
    return any(row.split in splits for row in choices.select(rows, **which, seed=0, share=1.0, placing=panel.placing))


def _lacking(names: Sequence[str]) -> str:
    return f"; not computed: {'; '.join(names)}" if names else ""


def write(out: Path, rows: Sequence[Row], find: Find, quick: bool, command: str) -> str:
    """Write everything into a folder, and return the page's text.

    A picture of which some cells are only on another machine stays as that one has drawn it.
    """
    suffix = "-quick" if quick else ""
    results.write_csv(out / f"cells{suffix}.csv", rows)
    made = sections(rows, quick)
    for name in ("table-1", "table-2", "claims"):
        lines = [{**line, **_notes(line, quick)} for line in made[name].lines]
        tables.write_csv(out / f"{name}{suffix}.csv", lines)
    shown: dict[str, tuple[str, Path | None]] = {}
    for name, (caption, draw, whole) in drawn(rows, find).items():
        file = out / f"figure-{name}{suffix}.png"
        if draw and (whole or not file.exists()):
            pictures.save(file, draw(), QUICK_LINE if quick else "")
        shown[name] = caption, file if file.exists() else None
    page = Page(TITLE + (" (shortened)" if quick else ""), list(made.values()), shown, quick, command)
    text = _markdown(page)
    write_atomically(out / f"paper{suffix}.md", text)
    write_atomically(out / f"report{suffix}.html", _html(page))
    return text


def _notes(line: Line, quick: bool) -> Line:
    """Return the columns of a CSV file that the page says above its table."""
    of_cifar = line["dataset"] == "cifar-10" if "dataset" in line else True  # a claim is about all data sets
    note = f"CIFAR-10: {EXACT}" if of_cifar else ""
    return {**({"shortened": "yes"} if quick else {}), "note": note}


def _markdown(page: Page) -> str:
    parts = [f"# {page.title}", *([f"**{QUICK}**"] if page.quick else []), protocol(page.quick), f"    {page.command}"]
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
    paragraphs = "".join(f"<p>{html.escape(part.replace('**', ''))}</p>" for part in protocol(page.quick).split("\n\n"))
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
