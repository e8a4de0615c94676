"""The words of an alert."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from ecgwatch import bundle as bundles
from ecgwatch.alerts import alert
from ecgwatch.beats import Contract
from ecgwatch.messages import Beat


@pytest.fixture(scope="module")
def bundle() -> bundles.Bundle:
    return bundles.load("default")


def reason(bundle: bundles.Bundle, *rr_ms: float) -> str:
    beat = Beat("bed-2", "MLII", 0, 125.0, 0, np.zeros(2, np.float32), np.array(rr_ms, np.float32))
    made = alert(beat, 10.0, 100.0, 9.0, "learned", 3.0, bundle)
    assert made is not None
    return made.reason


def test_pauses_among_the_last_40_rr_intervals_are_named(bundle: bundles.Bundle) -> None:
    plain = reason(bundle, 800, 1999, 790)
    assert "map distance 100.00" in plain
    assert "pause" not in plain
    assert reason(bundle, 800, 2000, 3240, 790) == f"{plain}; pauses among its RR intervals: 2, the longest of 3.2 s"
    assert reason(bundle, 2000, *[800] * 40) == plain
    assert reason(bundle) == plain


def test_a_model_that_knows_no_pauses_names_none(bundle: bundles.Bundle) -> None:
    of_segments = msgspec.structs.replace(bundle.manifest, contract=Contract())
    assert "pause" not in reason(replace(bundle, manifest=of_segments), 800, 3000)
