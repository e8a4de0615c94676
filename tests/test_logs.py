"""Log lines: designed, one per event, quiet about what libraries repeat."""

import io
import logging
import re
from collections.abc import Iterator

import pytest

from ecgwatch import logs
from ecgwatch.config import Logs

FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) [^\n]*\n")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level, ours = root.handlers[:], root.level, logs.log.level
    text = io.StringIO()
    logs.set_up(Logs(), text)
    yield text
    root.handlers[:] = handlers
    root.setLevel(level)
    logs.log.setLevel(ours)
    logging.captureWarnings(False)


def test_a_line_is_time_level_and_text(stream: io.StringIO):
    logs.log.warning("broker %s is away", "a:1")
    assert FORM.fullmatch(stream.getvalue())
    assert stream.getvalue().endswith("Z WARNING broker a:1 is away\n")


def test_an_event_is_one_line_even_with_a_traceback_and_line_breaks(stream: io.StringIO):
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        logging.getLogger("aiokafka").exception("first\nsecond")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("ERROR aiokafka: first second\n")


def test_what_a_terminal_would_obey_is_escaped(stream: io.StringIO):
    logs.log.info("patient %s", "\x1b[2Jbed-5\x9b7m für Ü")
    assert stream.getvalue().endswith("patient \\x1b[2Jbed-5\\x9b7m für Ü\n")


def test_lines_below_the_level_are_left_out(stream: io.StringIO):
    logs.log.debug("detail")
    logging.getLogger("faust").info("banner")
    assert stream.getvalue() == ""


def test_no_level_shows_what_a_client_says_to_the_broker_a_password_for_one(stream: io.StringIO):
    logs.set_up(Logs(level="debug"), stream)
    for library in ("aiokafka.conn", "aiokafka.consumer"):
        logging.getLogger(library).debug("request")
    assert stream.getvalue().endswith("DEBUG aiokafka.consumer: request\n") and stream.getvalue().count("\n") == 1


def test_a_library_that_repeats_itself_100_000_times_is_one_line(stream: io.StringIO):
    library = logging.getLogger("aiokafka.conn")
    for number in range(100_000):
        library.error("Unable to connect to node %d", number)
    assert stream.getvalue().count("\n") == 1


def test_libraries_that_all_complain_differently_get_a_few_lines(stream: io.StringIO):
    for number in range(1000):
        logging.getLogger(f"library{number}").error(f"complaint {number}")
    assert stream.getvalue().count("\n") == logs.LIBRARY_LINES


def test_our_own_lines_are_never_held_back(stream: io.StringIO):
    for number in range(100):
        logs.log.info("event %d", number)
    assert stream.getvalue().count("\n") == 100


def test_after_a_while_a_library_may_speak_again_and_tells_how_much_was_held_back():
    libraries = logs.Libraries()

    def shown(at_s: float) -> str | None:
        record = logging.LogRecord("aiokafka", logging.ERROR, "", 0, "no node", (), None)
        record.created = at_s
        return record.getMessage() if libraries.filter(record) else None

    assert [shown(0), shown(1), shown(2)] == ["no node", None, None]
    assert shown(logs.LIBRARY_INTERVAL_S) == "no node (2 lines held back before)"


def test_a_patient_is_a_short_hash_in_a_line():
    assert re.fullmatch(r"patient #[0-9a-f]{8}", logs.who("Jane Roe", Logs()))


def test_a_patient_is_named_where_the_settings_allow_it():
    assert logs.who("Jane Roe", Logs(identities=True)) == "patient Jane Roe"


def test_an_error_is_named_by_type_and_place_without_its_text():
    try:
        raise ValueError("Jane Roe's signal")
    except ValueError as error:
        assert re.fullmatch(r"ValueError at test_logs.py:\d+", logs.where(error))
