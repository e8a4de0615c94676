"""What the README shows is true: its messages decode, its commands exist, its links lead somewhere."""

import json
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from ecgwatch import bundle, cli, errors, messages
from ecgwatch.patients import prepare

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").glob("*.md")]


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


def test_the_alert_and_the_score_decode():
    beat_id = messages.decode_beats(example("ecg-beats"), key=b"bed-5")[0].id
    assert messages.decode_alert(example("ecg-alerts")).id == beat_id
    assert messages.decode_score(example("ecg-scores")).id == beat_id


def test_the_dead_letters_headers_are_those_of_the_wire_contract():
    assert set(json.loads(example("ecg-dead-letters"))) <= set(messages.DEAD_LETTER_HEADERS)


def test_the_reasons_of_dead_letters_are_those_of_the_code():
    section = README.split("### `ecg-dead-letters`")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    explained = {slug for row in rows for slug in re.findall(r"`(.+?)`", row)} - {"ecgwatch-reason"}
    assert explained == set(get_args(errors.Reason))


def test_every_reason_of_dead_letters_is_given_somewhere():
    code = "".join(file.read_text() for file in (ROOT / "ecgwatch").glob("*.py") if file.name != "errors.py")
    assert [reason for reason in get_args(errors.Reason) if f'"{reason}"' not in code] == []


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
