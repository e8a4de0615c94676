"""What the README shows is true: its messages decode, its commands exist, its links lead somewhere."""

import json
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from ecgwatch import alerts, bundle, cli, config, errors, messages
from ecgwatch.patients import prepare
from ecgwatch.records import beats_of, read_excerpt
from ecgwatch.scorer import Scorer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "deploy").rglob("*.md"),
    *(ROOT / "ecgwatch").rglob("*.md"),
]


def example(topic: str) -> bytes:
    """Return the first JSON block of the section about a topic."""
    section = README.split(f"### `{topic}`")[1]
    return section.split("```json\n")[1].split("```")[0].encode()


def commands() -> list[str]:
    """Return every `ecgwatch ...` line of the README's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.split("ecgwatch ", 1)[1] for line in lines if re.match(r"(\w+=\S+ )*ecgwatch ", line)]


def test_the_beat_that_a_person_can_type_decodes_and_fits_the_default_model():
    beats = messages.decode_beats(example("ecg-beats"), key=b"bed-5")
    assert prepare(beats, bundle.load("default").manifest.contract, {}).refused == {}


def test_the_score_is_what_the_default_model_says_of_that_beat():
    shown = messages.decode_score(example("ecg-scores"))
    beats = messages.decode_beats(example("ecg-beats"), key=b"bed-5")
    assert_shown(shown, beats, 0)
    assert not shown.alert


def test_the_alert_is_one_of_a_ventricular_beat_of_the_demo():
    shown = messages.decode_alert(example("ecg-alerts"))
    record = read_excerpt(ROOT / "ecgwatch" / "demo" / "excerpts" / "233.npz")
    start, length_ms = messages.decode_beats(example("ecg-beats"), key=b"bed-5")[0].r_time_ms, 240_000
    beats = [beat for turn in (0, 1) for beat in beats_of(record, "bed-5", start + turn * length_ms)]
    number = [beat.id for beat in beats].index(shown.id)
    assert (2 * record.symbols)[number] == "V"
    assert_shown(shown, beats[: number + 1], number)
    assert shown.reason == alerts.reason(shown.nse, shown.distance, bundle.load("default"))


def assert_shown(shown: messages.Alert | messages.Score, beats: list[messages.Beat], number: int) -> None:
    """An alert or a score is what the default bundle says of a beat after those before it, but for rounding."""
    model = bundle.load("default")
    prepared = prepare(beats, model.manifest.contract, {})
    place = prepared.kept.tolist().index(number)
    found = Scorer(model).score(prepared.x[[place]])
    assert (shown.id, shown.lead, shown.r_time_ms) == (beats[number].id, beats[number].lead, beats[number].r_time_ms)
    assert (shown.nse, shown.distance, shown.score) == pytest.approx(
        (found.nse[0], found.distance[0], found.score[0]), rel=0.01, abs=5e-6
    )
    assert (shown.model, shown.baseline) == (model.sha256, prepared.known[place])
    assert shown.threshold == pytest.approx(model.threshold(config.Alerts().false_alerts_per_hour), abs=0.005)


def test_the_dead_letters_headers_are_those_of_the_wire_contract():
    assert set(json.loads(example("ecg-dead-letters"))) <= set(messages.DEAD_LETTER_HEADERS)


def test_the_reasons_of_dead_letters_are_those_of_the_code():
    section = README.split("### `ecg-dead-letters`")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    explained = {slug for row in rows for slug in re.findall(r"`(.+?)`", row)} - {"ecgwatch-reason"}
    assert explained == set(get_args(errors.Reason))


def test_every_reason_of_dead_letters_is_given_somewhere():
    code = "".join(file.read_text() for file in (ROOT / "ecgwatch").glob("*.py"))
    assert [reason for reason in get_args(errors.Reason) if code.count(f'"{reason}"') < 2] == []  # one is the list's


def test_every_exit_code_of_the_program_is_explained():
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EcgwatchError)
    ]
    assert [kind.exit_code for kind in kinds if f"\n| {kind.exit_code} |" not in README] == []


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_is_understood(command):
    argv = shlex.split(command)
    cli.parser(argv[0]).parse_args(argv)


def test_the_commands_are_found_at_all():
    assert {"worker", "alerts --from-beginning"} <= set(commands())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(document):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []
