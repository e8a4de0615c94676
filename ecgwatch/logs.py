"""Log set-up: one designed line per event on stderr.

    2026-11-24T01:02:03.456Z INFO started: group ecgwatch, ...

Our own lines carry no signal data, and name a patient only through `who`. The client libraries may say what went
wrong, but each thing once a minute and never with a traceback: a broker outage makes them repeat themselves thousands
of times a second.
"""

import hashlib
import logging
import sys
import time
from pathlib import Path
from typing import TextIO

from ecgwatch.config import Logs

log = logging.getLogger("ecgwatch")

LIBRARY_INTERVAL_S = 60.0
LIBRARY_LINES = 5  # of all libraries together, per interval
MAX_LINE = 300
FAILED_AGAIN_S = 60.0


def set_up(settings: Logs, stream: TextIO | None = None) -> None:
    """Send all log records of this process to `stream` (stderr), those of the libraries rate-limited."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines())
    handler.addFilter(Libraries(verbose=settings.level == "debug"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if settings.level == "debug" else logging.WARNING)
    log.setLevel(settings.level.upper())
    logging.getLogger("aiokafka.conn").setLevel(logging.INFO)  # its debug lines hold the password of SASL
    logging.captureWarnings(True)


def who(patient: str, settings: Logs) -> str:
    """Name a patient in a log line: by name where identities are allowed, else by a short hash of it."""
    if settings.identities:
        return f"patient {patient}"
    return f"patient #{hashlib.sha256(patient.encode()).hexdigest()[:8]}"


def where(error: Exception) -> str:
    """Name an error in a log line by its type and place; not by its text, which may hold what was in a message."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"


def failed(error: Exception) -> None:
    """Say that ecgwatch itself failed on a message or a beat, and where; of each place once in FAILED_AGAIN_S.

    A device may trip it with every beat; how many there were the dead letters tell.
    """
    place, now = where(error), time.monotonic()
    if now - _failed_at.get(place, -FAILED_AGAIN_S) >= FAILED_AGAIN_S:
        _failed_at[place] = now
        log.error("ecgwatch failed on a beat or a message, which goes to the dead letters: %s", place)


_failed_at: dict[str, float] = {}


def printable(text: str) -> str:
    """Escape what a terminal would obey, or not show: a name from the wire may hold anything."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class Lines(logging.Formatter):
    """Time (UTC), level, text: one line, but for the tracebacks of level debug."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage()
        if not _is_ours(record):
            text = f"{record.name}: {text}"
        text = printable(" ".join(text.split()))
        if len(text) > MAX_LINE and not _is_ours(record):
            text = text[:MAX_LINE] + "..."
        line = f"{seconds}.{int(record.msecs):03d}Z {record.levelname} {text}"
        if record.exc_info and record.levelno == logging.DEBUG:
            return f"{line}\n{self.formatException(record.exc_info)}"
        return line


class Libraries(logging.Filter):
    """Lets a library's warnings and errors through, each kind once per interval and a few of all together."""

    def __init__(self, verbose: bool = False) -> None:
        super().__init__()
        self._verbose = verbose
        self._interval_ends = 0.0
        self._shown: set[tuple[str, str]] = set()
        self._held_back = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is shown."""
        if _is_ours(record):
            return True
        if record.levelno < logging.WARNING:
            return self._verbose
        if record.created >= self._interval_ends:
            self._interval_ends = record.created + LIBRARY_INTERVAL_S
            self._shown.clear()
        kind = (record.name, str(record.msg))
        if kind in self._shown or len(self._shown) >= LIBRARY_LINES:
            self._held_back += 1
            return False
        self._shown.add(kind)
        if self._held_back:
            record.msg, record.args = f"{record.getMessage()} ({self._held_back} lines held back before)", ()
            self._held_back = 0
        return True


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name == log.name or record.name.startswith(log.name + ".")
