"""What the demo plays."""

import numpy as np
import pytest

from ecgwatch import bundle
from ecgwatch.demo.plan import EXCERPTS, beds, planned, read
from ecgwatch.errors import ConfigError
from ecgwatch.messages import JSON, MSGPACK
from ecgwatch.patients import prepare
from ecgwatch.records import AFTER_S


@pytest.fixture(scope="module")
def plan():
    return planned({bed: read(name) for bed, name in beds(None).items()}, start_ms=1_000_000)


@pytest.mark.parametrize("name", EXCERPTS)
def test_an_excerpt_holds_four_minutes_of_lead_mlii_with_its_beats(name):
    record = read(name)
    assert (record.name, record.lead, record.fs_hz, len(record.signal)) == (name, "MLII", 360, 4 * 60 * 360)
    assert len(record.symbols) == len(record.r_samples) > 200
    assert np.all(np.diff(record.r_samples) > 0)


def test_every_beat_fits_the_shipped_model(plan):
    assert prepare([item.beat for item in plan], bundle.load("default").manifest.contract, {}).refused == {}


def test_beats_are_sent_in_the_order_in_which_their_windows_are_complete(plan):
    assert [item.due_s for item in plan] == sorted(item.due_s for item in plan)
    assert all(
        item.due_s == pytest.approx((item.beat.r_time_ms - 1_000_000) / 1000 + AFTER_S, abs=0.001) for item in plan
    )


def test_beats_carry_their_annotation(plan):
    assert {item.truth.aami for item in plan if item.truth.patient == "bed-5"} >= {"N", "V"}
    assert sum(item.truth.aami == "S" for item in plan if item.truth.patient == "bed-4") > 100


def test_both_wire_forms_are_shown(plan):
    assert {item.content_type for item in plan} == {JSON, MSGPACK}


def test_an_unknown_record_is_an_error_that_names_those_there_are():
    with pytest.raises(ConfigError, match=r"207.*100, 105, 213, 232, 233"):
        read("207")


def test_a_record_named_twice_is_one_patient():
    assert beds(["233", "100", "233"]) == {"bed-1": "233", "bed-2": "100"}
