"""What `ecgwatch alerts` prints; the rest of the clients needs a broker: tests/integration/test_clients.py."""

import io
import json

from ecgwatch import clients, messages

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
