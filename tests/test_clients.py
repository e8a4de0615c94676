"""What `ecgwatch alerts` prints; the rest of the clients needs a broker: tests/integration/test_clients.py."""

import io
import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from ecgwatch import clients, messages
from ecgwatch.config import Settings
from ecgwatch.errors import DataError
from tests.wfdb_records import excerpt, write_record

ALERT = messages.Alert(
    1, "bed-2/MLII/1700000000123", "bed-2", "MLII", 1_700_000_000_123, 4.211, 3.0, 0.1, 9.0, "map distance 9.00", "ab"
)


def test_a_json_line_is_the_alert_as_it_stands_on_the_topic():
    out = io.StringIO()
    clients.json_lines(out)(ALERT)
    assert json.loads(out.getvalue()) == json.loads(messages.encode(ALERT))
    assert out.getvalue().count("\n") == 1


def test_a_row_of_the_table_holds_time_patient_score_and_reason():
    out = io.StringIO()
    clients.table(out)(ALERT)
    header, row = out.getvalue().splitlines()
    assert header.split("  ")[0] == "time of R (UTC)"
    assert row.split() == ["2023-11-14", "22:13:20.123", "bed-2", "MLII", "4.21", "3.00", "map", "distance", "9.00"]


def test_a_row_with_a_long_reason_stays_one_line():
    out = io.StringIO()
    show = clients.table(out)
    show(messages.Alert(**{name: getattr(ALERT, name) for name in ALERT.__struct_fields__} | {"reason": "long " * 100}))
    assert len(out.getvalue().splitlines()) == 2


def test_a_patient_named_like_markup_is_printed_as_it_is():
    out = io.StringIO()
    show = clients.table(out)
    show(messages.Alert(**{name: getattr(ALERT, name) for name in ALERT.__struct_fields__} | {"patient": "[red]x[/]"}))
    assert "[red]x[/]" in out.getvalue()


CONTROLS = "\x1b]0;owned\x07 \x9b2J \u202e \n \x7f"


def test_control_characters_of_a_name_are_escaped_in_the_table_and_letters_are_not():
    out = io.StringIO()
    show = clients.table(out)
    show(msgspec.structs.replace(ALERT, patient=f"Zoë{CONTROLS}"))
    row = out.getvalue().splitlines()[1]
    assert row.isprintable()
    assert r"Zoë\x1b]0;owned\x07 \x9b2J \u202e \n \x7f" in row


def test_control_characters_of_a_name_are_escaped_in_a_json_line_which_stays_the_same_alert():
    out = io.StringIO()
    alert = msgspec.structs.replace(ALERT, patient=CONTROLS)
    clients.json_lines(out)(alert)
    assert not [one for one in out.getvalue().rstrip("\n") if one in "\x1b\x07\x9b\n\x7f"]
    assert messages.decode_alert(out.getvalue().encode()) == alert


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_name_that_the_terminals_encoding_lacks_does_not_end_the_json_lines(encoding: str):
    alert = msgspec.structs.replace(ALERT, patient="Müller-β-\U0001f493")
    written = io.BytesIO()
    terminal = io.TextIOWrapper(written, encoding)
    clients.json_lines(terminal)(alert)
    terminal.flush()
    assert messages.decode_alert(written.getvalue()) == alert


@pytest.mark.parametrize("options", [{"lead": "ECG lead II"}, {"patient": "p" * 201}])
def test_a_record_whose_beats_no_worker_would_take_is_not_replayed(tmp_path: Path, options: dict[str, str]):
    made = write_record(tmp_path, replace(excerpt(), lead=options.get("lead", "MLII")))
    with pytest.raises(DataError, match=r"no worker would take these beats: .*; choose names with --patient, --lead"):
        clients.replay(Settings(), made, **options)  # asks no broker


def record(value: bytes | None) -> SimpleNamespace:
    """A record of the alert topic, as confluent-kafka gives it."""
    fields = {"error": None, "value": value, "topic": "ecg-alerts", "partition": 3, "offset": 17}
    return SimpleNamespace(**{name: lambda result=result: result for name, result in fields.items()})


@pytest.mark.parametrize(
    "value",
    [None, b"hello", b"\xff", b'{"version":1,"id":"\xff"}', b"[" * 100_000, b'{"x":' + b"[" * 100_000],
    ids=["empty", "no JSON", "no UTF-8", "no UTF-8 within", "nested", "nested within"],
)
def test_a_record_that_is_no_alert_is_skipped_and_its_place_is_said(value, caplog):
    assert clients._alert(Settings(), record(value), set()) is None
    assert caplog.messages == ["skipped ecg-alerts [3] at offset 17: the record is no alert"]


def test_alerts_of_a_newer_version_are_skipped_which_is_said_once_of_each_version(caplog):
    caplog.set_level(logging.WARNING)
    newer: set[int] = set()
    as_now = messages.encode(msgspec.structs.replace(ALERT, version=2))
    for value in (as_now, b'{"version":2,"what":"else"}', b'{"version":3}', as_now):
        assert clients._alert(Settings(), record(value), newer) is None
    assert [line.split(": ")[1] for line in caplog.messages] == [
        "an alert of version 2, this reader knows 1",
        "an alert of version 3, this reader knows 1",
    ]
    assert clients._alert(Settings(), record(messages.encode(ALERT)), newer) == ALERT
