"""Beats as model inputs: the paper's segment, for one beat alone or many."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import resample_poly

from ecgwatch.beats import RATES_KEPT, Contract, _rates, _resampling, median_rr_s, prepare
from ecgwatch.messages import Beat
from ecgwatch.records import beats_of
from tests.wfdb_records import excerpt

CONTRACT = Contract()


def beat(fs_hz: float = 360.0, rr_ms: tuple[float, ...] = (800.0,) * 12, after_s: float = 1.75, **changes) -> Beat:
    """A beat of one millivolt with a T wave, and another one `rr_ms[-1]` later."""
    before = round(0.5 * fs_hz)
    t = np.arange(-before, round(after_s * fs_hz)) / fs_hz
    next_s = rr_ms[-1] / 1000 if rr_ms else 0.8
    signal = sum(
        np.exp(-(((t - at) / 0.03) ** 2)) + 0.3 * np.exp(-(((t - at - 0.3) / 0.06) ** 2)) for at in (0, next_s)
    )
    made = Beat("p", "MLII", 0, fs_hz, before, signal.astype(np.float32), np.array(rr_ms, np.float32))
    return replace(made, **changes)


def one(made: Beat, contract: Contract = CONTRACT) -> np.ndarray:
    prepared = prepare([made], contract)
    assert prepared.refused == {}
    return prepared.x[0]


def reason(made: Beat, contract: Contract = CONTRACT) -> str:
    prepared = prepare([made], contract)
    assert len(prepared.x) == len(prepared.kept) == 0
    return prepared.refused[0].reason


class TestSegment:
    def test_it_begins_at_r_and_lasts_1_2_median_rr_then_zeros(self):
        x = one(beat())
        assert x.dtype == np.float32 and x.shape == (187,)
        length = int(1.2 * 0.8 * 125)
        assert x[:length].argmax() in (0, 100)  # this R or the next, 0.8 s later
        assert x[0] > 0.99
        assert (x[length:] == 0).all()

    def test_a_slow_heart_fills_all_187_samples(self):
        assert one(beat(rr_ms=(1400.0,) * 5))[-1] > 0

    def test_its_lowest_value_is_0_and_its_highest_1(self):
        x = one(beat())[:120]
        assert (x.min(), x.max()) == (0, 1)

    @given(gain=st.floats(0.1, 50), offset=st.floats(-20, 20))
    def test_gain_and_offset_of_the_signal_change_nothing(self, gain, offset):
        made = beat()
        changed = replace(made, samples=(made.samples * gain + offset).astype(np.float32))
        np.testing.assert_allclose(one(changed), one(made), atol=1e-4 + 1e-6 * abs(offset) / gain)

    def test_an_inverted_signal_is_not_the_same(self):
        made = beat()
        assert np.abs(one(replace(made, samples=-made.samples)) - one(made)).max() > 0.5

    def test_the_signal_before_r_beyond_the_filters_reach_is_not_used(self):
        made = beat()
        changed = made.samples.copy()
        changed[: made.r_index - round(0.09 * 360)] = 9
        assert np.array_equal(one(replace(made, samples=changed)), one(made))

    def test_the_signal_after_the_segment_beyond_the_filters_reach_is_not_used(self):
        made = beat()
        changed = made.samples.copy()
        changed[made.r_index + round((1.2 * 0.8 + 0.09) * 360) :] = 9
        assert np.array_equal(one(replace(made, samples=changed)), one(made))

    def test_a_bundle_with_another_factor_takes_another_length(self):
        x = one(beat(), Contract(rr_factor=0.5))
        assert np.flatnonzero(x).max() < 50

    @pytest.mark.parametrize("rr_ms", [1e-3, 1e30])
    def test_an_absurd_interval_gives_a_segment_within_bounds(self, rr_ms):
        x = one(replace(beat(), rr_ms=np.array([rr_ms], np.float32)))
        assert np.flatnonzero(x).max() == (186 if rr_ms > 1 else 0)


class TestMedianRR:
    def test_it_is_that_of_the_last_ten_seconds(self):
        slow_then_fast = np.array([2000.0] * 20 + [500.0] * 20)
        assert median_rr_s(slow_then_fast, 10.0) == 0.5

    def test_an_interval_that_ends_exactly_ten_seconds_back_counts(self):
        assert median_rr_s(np.array([9000.0, 3000.0, 1000.0, 6000.0]), 10.0) == 3.0

    def test_an_interval_that_reaches_further_back_does_not_count(self):
        assert median_rr_s(np.array([9000.0, 3000.1, 1000.0, 6000.0]), 10.0) == 3.5

    def test_after_a_pause_longer_than_the_window_the_pause_alone_counts(self):
        assert median_rr_s(np.array([800.0, 12000.0]), 10.0) == 12.0

    def test_only_the_past_decides(self):
        record = excerpt("233", 60)
        cut = replace(record, r_samples=record.r_samples[:31], symbols=record.symbols[:31])
        whole, past = prepare(beats_of(record, "p")[:31], CONTRACT), prepare(beats_of(cut, "p"), CONTRACT)
        assert np.array_equal(whole.x, past.x)


class TestRefusal:
    def test_a_lead_that_the_model_does_not_know(self):
        assert reason(beat(lead="V1")) == "lead"
        assert one(beat(lead="V1"), Contract(leads=())).any()

    def test_no_interval_before_the_beat(self):
        assert reason(beat(rr_ms=())) == "too-few-rr"

    def test_fewer_intervals_than_the_bundle_wants(self):
        assert reason(beat(rr_ms=(800.0,) * 3), Contract(rr_intervals=4)) == "too-few-rr"

    def test_signal_that_ends_one_sample_before_the_segment_does(self):
        last = (int(1.2 * 0.8 * 125) - 1) / 125  # seconds after R of the last sample of signal
        enough = int(np.ceil(last * 360)) + 1
        made = beat()
        assert one(replace(made, samples=made.samples[: made.r_index + enough])).any()
        assert reason(replace(made, samples=made.samples[: made.r_index + enough - 1])) == "too-short"

    def test_a_flat_line(self):
        made = beat()
        assert reason(replace(made, samples=np.full_like(made.samples, 1.5))) == "flat"

    def test_a_flat_line_after_a_lively_past(self):
        made = beat()
        samples = np.where(np.arange(len(made.samples)) < made.r_index - 40, made.samples, 2).astype(np.float32)
        assert reason(replace(made, samples=samples)) == "flat"

    def test_a_gap_of_the_signal(self):
        made = beat()
        samples = made.samples.copy()
        samples[made.r_index + 5] = np.nan
        assert reason(replace(made, samples=samples)) == "not-finite"

    def test_a_bundle_whose_segments_look_ahead(self):
        assert reason(beat(), Contract(rr_window="centred")) == "centred"

    def test_each_beat_is_refused_alone_and_the_others_keep_their_place(self):
        prepared = prepare([beat(), beat(lead="V1"), beat(), beat(rr_ms=()), beat(after_s=0.2)], CONTRACT)
        assert prepared.kept.tolist() == [0, 2]
        assert {number: error.reason for number, error in prepared.refused.items()} == {
            1: "lead",
            3: "too-few-rr",
            4: "too-short",
        }

    def test_no_text_holds_signal_or_identity(self):
        made = beat(lead="secret-lead", patient="secret-patient")
        assert "secret" not in str(prepare([made], CONTRACT).refused[0])

    def test_no_beats_give_an_empty_array(self):
        assert prepare([], CONTRACT).x.shape == (0, 187)


def test_a_beat_is_the_same_alone_in_a_batch_and_beside_other_rates():
    beats = [*beats_of(excerpt("233", 60), "p")[1:], beat(fs_hz=250.0), beat(fs_hz=1000.0)]
    together = prepare(beats, CONTRACT)
    for x, number in zip(together.x, together.kept, strict=True):
        np.testing.assert_allclose(one(beats[number]), x, atol=1e-6)


@pytest.mark.parametrize("fs_hz", [100.0, 125.0, 128.0, 250.0, 500.0, 1000.0])
def test_a_beat_recorded_at_another_rate_gives_the_same_segment(fs_hz):
    np.testing.assert_allclose(one(beat(fs_hz=fs_hz)), one(beat(fs_hz=360.0)), atol=0.01)


def test_ever_another_rate_takes_bounded_memory_and_those_nearly_alike_are_computed_once():
    _resampling.cache_clear()
    measured = [250 + (number - 40) / 1000 for number in range(80)]  # by a device that sends what it measures
    together = prepare([beat(fs_hz=fs_hz) for fs_hz in measured], CONTRACT)
    np.testing.assert_allclose(together.x, np.tile(one(beat(fs_hz=250.0)), (80, 1)), atol=0.01)
    assert _resampling.cache_info().misses == 1
    prepare([beat(fs_hz=100.0 + number) for number in range(RATES_KEPT + 5)], CONTRACT)
    assert _resampling.cache_info().currsize == RATES_KEPT


@pytest.mark.parametrize("fs_hz", [50.0, 51.2, 62.5, 128.0, 204.8, 333.3, 360.0, 977.0, 2048.0, 9999.9])
def test_an_ordinary_rate_is_taken_as_it_is(fs_hz):
    assert _rates([beat(fs_hz=fs_hz)]).tolist() == [fs_hz]


def test_at_the_models_own_rate_the_samples_are_taken_as_they_are():
    made = beat(fs_hz=125.0)
    segment = made.samples[made.r_index : made.r_index + 120]
    np.testing.assert_allclose(one(made)[:120], (segment - segment.min()) / np.ptp(segment), atol=1e-5)


def test_resampling_agrees_with_scipy_on_the_whole_record():
    """At beats whose R falls on a sample of the 125 Hz grid, 72 of 360 Hz samples apart from each 25th."""
    record = excerpt("233", 60)
    r = np.arange(720, len(record.signal) - 1440, 72 * 7)
    on_grid = replace(record, r_samples=r, symbols=("N",) * len(r))
    whole = resample_poly(record.signal.astype(float), 25, 72)
    prepared = prepare(beats_of(on_grid, "p"), CONTRACT)
    assert len(prepared.x) > 20
    length = int(1.2 * 1.4 * 125)
    for x, number in zip(prepared.x, prepared.kept, strict=True):
        at = r[number] * 25 // 72
        segment = whole[at : at + min(length, 187)]
        expected = (segment - segment.min()) / np.ptp(segment)
        np.testing.assert_allclose(x[: len(segment)], expected, atol=1e-4)
