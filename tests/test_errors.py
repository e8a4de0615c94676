"""The exception tree and its exit codes."""

import os
import re

import pytest

from ecgwatch import errors

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EcgwatchError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_stands_in_the_drawn_tree(kind: type):
    assert errors.__doc__ is not None
    assert re.search(rf"\b{kind.__name__}\b", errors.__doc__)


def test_the_drawn_exit_codes_are_the_real_ones():
    drawn = dict(re.findall(r"(\w+Error) +\((\d+)\)", errors.__doc__ or ""))
    assert {name: getattr(errors, name).exit_code for name in drawn} == {
        name: int(code) for name, code in drawn.items()
    }


def test_each_error_that_ends_a_process_has_a_code_of_its_own():
    ending = [kind for kind in CLASSES if kind not in (errors.EcgwatchError, errors.MessageError)]
    assert len({kind.exit_code for kind in ending}) == len(ending)


@pytest.mark.parametrize("kind", CLASSES)
def test_no_error_exits_like_success_or_a_wrong_command_line(kind: type[errors.EcgwatchError]):
    assert kind.exit_code not in (os.EX_OK, 1, 2)


def test_access_that_is_refused_is_a_broker_error():
    assert issubclass(errors.AccessError, errors.BrokerError)


def test_a_message_error_has_a_reason_and_a_text():
    error = errors.MessageError("too-short", "0.5 s of signal after R")
    assert (error.reason, str(error)) == ("too-short", "0.5 s of signal after R")
