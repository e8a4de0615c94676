"""The report of a run, from made arrays."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from training import report
from training.parameters import CLASSES

PICTURES = ("losses.png", "map.png", "reconstructions.png", "roc.png")


def made() -> report.Report:
    rng = np.random.default_rng(0)
    abnormal = np.arange(300) % 3 == 0
    return report.Report(
        words=report.BEATS,
        names=CLASSES["arrhythmia"],
        title="made <run> & co",
        protocol="Made people only.",
        losses=[
            {
                "epoch": e,
                "total": 9 / e,
                "reconstruction": 8 / e,
                "kl": 1.0 + e,
                "capacity": 2.0 * e,
                "watched_nse": 1 / e,
            }
            for e in range(1, 5)
        ],
        examples=[report.Example(kind, rng.random(187), rng.random(187), 0.25) for kind in "NNSVF"],
        positions=rng.normal(size=(200, 2)),
        owners=np.array(["100", "101"] * 100),
        placed=np.r_[rng.normal(size=(28, 2)), [[1e6, 0], [0, -1e6]]],
        kinds=np.array(["N"] * 28 + ["V"] * 2),
        terms={"nse": rng.random(300), "distance": rng.random(300) + abnormal, "score": rng.random(300)},
        abnormal=abnormal,
        tables=[report.Table("AUROC", "a note", ("beats", "S", "n"), [("all", 0.12345, 7), ("232", None, 3)])],
        parameters={"beta": 0.01, "normal": ("N", "S")},
        versions={"torch": "2.15.0"},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert report.write(folder, made()) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def cells(page: str) -> list[list[str]]:
    return [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]


class References(HTMLParser):
    """Collects everything by which a page can load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script" or any(name.startswith("on") for name, _ in attrs)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def test_pictures_and_page_are_written_and_nothing_else(run):
    assert sorted(file.name for file in run.iterdir()) == sorted([*PICTURES, "report.html"])
    assert all((run / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)


def test_the_page_carries_its_four_pictures_and_loads_nothing(page):
    references = References()
    references.feed(page)
    assert len(references.found) == 4
    assert all(one.startswith("data:image/png;base64,") for one in references.found)
    assert references.scripts == 0
    assert not re.search(r"@import|url\(|https?://", page)


def test_the_figures_in_the_tables_are_those_given(page):
    assert ["all", "0.123", "7"] in cells(page)
    assert ["232", "–", "3"] in cells(page)
    assert ["beta", "0.01"] in cells(page)
    assert ["normal", "N, S"] in cells(page)
    assert ["torch", "2.15.0"] in cells(page)


def test_protocol_and_medical_warning_stand_above_every_figure(page):
    body = page.split("<body>")[1]
    assert body.index("Made people only. ecgwatch is no") < body.index("<table>")
    assert body.index("no medical device") < body.index("<table>")


def test_text_cannot_become_markup(page):
    assert "<h1>made &lt;run&gt; &amp; co</h1>" in page


def test_the_roc_legend_names_the_area_of_each_term():
    labels = [text.get_text() for text in report.roc_picture(made()).axes[0].get_legend().get_texts()]
    terms, abnormal = made().terms, made().abnormal
    pairs = {name: (v[abnormal][:, None] > v[~abnormal]).mean() for name, v in terms.items()}
    assert labels == [f"{report.TERM_NAMES[name]}: {area:.3f}" for name, area in pairs.items()]


def test_the_losses_drawn_are_those_given():
    figure = report.losses_picture(made())
    drawn = {line.get_label(): line.get_ydata().tolist() for axes in figure.axes for line in axes.lines}
    assert set(drawn) == set(report.LOSS_NAMES.values())
    for key, label in report.LOSS_NAMES.items():
        assert drawn[label] == [row[key] for row in made().losses]


def test_each_example_is_drawn_with_its_reconstruction_and_its_nse():
    axes = report.reconstructions_picture(made()).axes[2]
    assert axes.get_title() == "S, supraventricular: NSE 0.250"
    for line, values in zip(axes.lines, (made().examples[2].x, made().examples[2].y), strict=True):
        assert np.array_equal(line.get_ydata(), values)


def test_images_are_drawn_above_their_reconstructions_with_class_and_nse():
    rng = np.random.default_rng(0)
    examples = [report.Example(str(n % 10), rng.random((28, 28)), rng.random((28, 28)), 0.25) for n in range(12)]
    grid = report.reconstructions_picture(replace(made(), words=report.IMAGES, examples=examples)).axes
    for number, above in ((3, 3), (11, 21)):  # ten columns; every second row holds reconstructions
        assert grid[above].get_title() == f"{examples[number].kind}: 0.250"
        assert np.array_equal(grid[above].images[0].get_array(), examples[number].x)
        assert np.array_equal(grid[above + 10].images[0].get_array(), examples[number].y)


def test_a_report_of_images_speaks_of_images_and_classes_and_of_no_patient(tmp_path):
    classes = np.array(["3", "4"] * 100)
    of_images = replace(
        made(), words=report.IMAGES, names=CLASSES["mnist"], owners=classes, kinds=classes[:30], examples=[], tables=[]
    )
    page = report.write(tmp_path, of_images).read_text()
    assert "nearest reference image" in page
    assert not re.search("beat|patient|medical", re.sub(r"base64,[^\"]+", "", page))
    by_class, by_owner = report.map_picture(of_images).axes
    assert by_owner.get_title() == "reference images, by class"
    assert [text.get_text() for text in by_class.get_legend().get_texts()] == ["3 (15)", "4 (15)"]


def test_a_beat_far_outside_the_map_is_drawn_inside_the_picture_in_its_direction():
    by_class = report.map_picture(made()).axes[0]
    far = by_class.collections[-1].get_offsets()
    (left, right), (low, high) = by_class.get_xlim(), by_class.get_ylim()
    assert left < far[0, 0] < right and low < far[1, 1] < high
    assert far[0, 0] > 0.9 * right and far[1, 1] < 0.9 * low


def test_every_patient_of_the_map_is_in_the_legend():
    by_patient = report.map_picture(made()).axes[1]
    assert [text.get_text() for text in by_patient.get_legend().get_texts()] == ["100", "101"]


def test_the_same_run_gives_the_same_page(run, tmp_path):
    report.write(tmp_path, made())
    assert (tmp_path / "report.html").read_bytes() == (run / "report.html").read_bytes()


def test_a_run_without_examples_still_has_a_page(tmp_path):
    report.write(tmp_path, replace(made(), examples=[]))
    assert (tmp_path / "reconstructions.png").exists()
