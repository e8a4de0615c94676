"""Exceptions, each only where a caller treats it differently.

EcgwatchError                 base: the message is one line that says what to do; `exit_code` is the process's
├── ConfigError       (78)    a wrong or unknown key, a wrong value
├── BundleError       (65)    a model bundle that is damaged, of another version or incomplete
├── DataError         (66)    records or files that are absent or do not verify
├── BrokerError       (69)    no broker answered in time, a topic is missing, the broker refused
│   └── AccessError   (77)    wrong CA, user, password or ACL: waiting does not help
├── ScoringError      (70)    a batch failed: the worker ends, nothing of it is committed
├── StuckError        (75)    lag and no commit for too long: the watchdog ends the process
└── MessageError              one message or beat cannot be scored: it goes to the dead-letter topic with `reason`

The exit codes are those of BSD's sysexits (`os.EX_*`); 2 is a wrong command line, as argparse does it.
"""

import os
from typing import Literal

# Why a message, or some of its beats, cannot be scored: the slugs of dead letters, in the order of the checks. README
# says what each means; they are part of the wire contract.
Reason = Literal[
    "no-value",
    "no-key",
    "content-type",
    "not-json",
    "not-msgpack",
    "version",
    "schema",
    "key-mismatch",
    "samples",
    "not-finite",
    "out-of-range",
    "r-index",
    "rr",
    "lead",
    "too-few-rr",
    "too-short",
    "flat",
    "centred",
    "no-score",
    "internal",
]


class EcgwatchError(Exception):
    """Base of all errors that a user can cause or cure."""

    exit_code = os.EX_SOFTWARE


class ConfigError(EcgwatchError):
    exit_code = os.EX_CONFIG


class BundleError(EcgwatchError):
    exit_code = os.EX_DATAERR


class DataError(EcgwatchError):
    exit_code = os.EX_NOINPUT


class BrokerError(EcgwatchError):
    exit_code = os.EX_UNAVAILABLE


class AccessError(BrokerError):
    exit_code = os.EX_NOPERM


class ScoringError(EcgwatchError):
    exit_code = os.EX_SOFTWARE


class StuckError(EcgwatchError):
    exit_code = os.EX_TEMPFAIL


class MessageError(EcgwatchError):
    """One message, or one of its beats, cannot be scored.

    `reason` stands in the dead-letter header and is stable; the text says it in words and holds no signal data and no
    identity. "baseline" is no dead letter but a saved typical beat that cannot be read.
    """

    def __init__(self, reason: Reason | Literal["baseline"], text: str) -> None:
        super().__init__(text)
        self.reason = reason


def internal(error: Exception) -> MessageError:
    """Return what stands for a failure that nobody foresaw: its type, and not its text, which may hold signal data."""
    return MessageError("internal", f"an error in ecgwatch: {type(error).__name__}")
