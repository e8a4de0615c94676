"""What is learned of one patient without labels, and the model inputs that come of it; on beats made with numpy."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from math import ceil, log

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgwatch import beats as contracts
from ecgwatch import messages
from ecgwatch import patients as patients_module
from ecgwatch.beats import Bedside
from ecgwatch.errors import BundleError
from ecgwatch.messages import BaselineMessage, Beat
from ecgwatch.patients import (
    ACCEPTED_OVER,
    AGREED_MS,
    LEAST_ACCEPTED,
    LEAST_BEATS,
    MAX_LEADS,
    PAUSE_WEIGHT,
    RR_LIMITS,
    RR_WEIGHT,
    WATCHED_MS,
    Patient,
    Patients,
    prepare,
    see,
)
from ecgwatch.saved import from_message, to_message

CONTRACT = Bedside()
RR_MS = 800
LEARNING = ceil(CONTRACT.learn_s * 1000 / RR_MS) + 1  # beats, with the one that ends it
AGREED = ceil(AGREED_MS / RR_MS) + 1  # beats at another time, with the one that ends the doubt
LEAVING = ceil(log(LEAST_ACCEPTED) / log(1 - 1 / ACCEPTED_OVER))  # beats of another shape until the old one counts gone

Shape = Callable[[np.ndarray], np.ndarray]  # seconds from R -> millivolts


def waves(*parts: tuple[float, float, float]) -> Shape:
    """A sum of bumps: height in millivolts, time and width in seconds."""
    return lambda t: sum((height * np.exp(-(((t - at) / width) ** 2)) for height, at, width in parts), np.zeros(len(t)))


sinus = waves((0.12, -0.17, 0.03), (-0.1, -0.03, 0.012), (1, 0, 0.017), (-0.2, 0.03, 0.015), (0.3, 0.26, 0.06))
ectopic = waves((0.9, -0.01, 0.05), (-0.7, 0.1, 0.05), (-0.35, 0.28, 0.07))
jitter = waves((0.03, 0.18, 0.05))


def beat(number: int, shape: Shape = sinus, gain: float = 1.0, fs_hz: float = 360.0, **changes) -> Beat:
    """The beat of this number in a regular rhythm, with noise, a wandering baseline and a T wave that varies."""
    chance = np.random.default_rng(number)
    t = np.arange(-round(0.5 * fs_hz), round(0.75 * fs_hz)) / fs_hz
    drift = 0.5 + 0.2 * np.sin((number * RR_MS / 1000 + t) / 3)  # millivolts, over some 20 s
    signal = gain * (shape(t) + chance.normal() * jitter(t)) + drift + 0.01 * chance.normal(size=len(t))
    rr_ms = np.full(min(number, 32), RR_MS, np.float32)
    made = Beat("p", "MLII", number * RR_MS, fs_hz, round(0.5 * fs_hz), signal.astype(np.float32), rr_ms)
    return replace(made, **changes)


def clean(shape: Shape, contract: Bedside = CONTRACT) -> np.ndarray:
    """A shape as a window without noise."""
    before = round(contract.before_s * contract.fs_hz)
    window = shape((np.arange(contract.samples) - before) / contract.fs_hz)
    return window - np.median(window)


def feed(patients: Patients, beats: Sequence[Beat], contract: Bedside = CONTRACT) -> np.ndarray:
    """Prepare beats one by one, as a quiet topic brings them; return the inputs."""
    prepared = [prepare([one], contract, patients) for one in beats]
    assert all(not one.refused for one in prepared)
    return np.concatenate([one.x for one in prepared])


@cache
def _learned() -> Patients:
    patients: Patients = {}
    feed(patients, [beat(n) for n in range(LEARNING + 50)])
    return patients


def learned() -> Patients:
    """A patient whose learning time is over; the beat of number NEXT comes next."""
    return deepcopy(_learned())


NEXT = LEARNING + 50


def state(patients: Patients, contract: Bedside = CONTRACT) -> list[BaselineMessage]:
    """All that is known of all patients, in a form that can be compared."""
    return [to_message(name, leads, contract) for name, leads in patients.items()]


def lead(patients: Patients, name: str = "MLII") -> Patient:
    return patients["p"][name]


def typical(patients: Patients, name: str = "MLII") -> np.ndarray:
    found = lead(patients, name).typical
    assert found is not None
    return found


def parts(row: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The beat, the typical beat and the RR interval of an input."""
    return row[: CONTRACT.samples], row[CONTRACT.samples : -2], float(row[-2])


def near(typical_beat: np.ndarray, shape: Shape, gain: float = 1.0) -> bool:
    """Whether it is that shape at that gain, to 3 % of its amplitude."""
    expected = gain * clean(shape)
    return bool(np.sqrt(np.square(typical_beat - expected).mean()) < 0.03 * np.ptp(expected))


class TestLearning:
    @pytest.mark.parametrize("offset", range(4))
    def test_the_typical_beat_is_found_though_45_percent_of_the_first_beats_are_ectopic_of_one_other_shape(
        self, offset: int
    ):
        patients: Patients = {}
        numbers = range(10_000 * offset + 2, 10_000 * offset + 2 + LEARNING)  # the first is ectopic
        ectopics = [45 * (n + 1) // 100 > 45 * n // 100 for n in numbers]
        feed(patients, [beat(n, ectopic if other else sinus) for n, other in zip(numbers, ectopics, strict=True)])
        assert 0.44 < np.mean(ectopics) < 0.46
        assert lead(patients).known == "learned"
        assert near(typical(patients), sinus)
        assert lead(patients).deviation < 0.05

    def test_it_is_found_though_half_of_the_first_beats_are_ectopic_of_five_shapes(self):
        others = [waves((height, 0, 0.05), (-height, 0.1, 0.05)) for height in (1, -1, 0.5, 2, -2)]
        patients: Patients = {}
        feed(patients, [beat(n, others[n // 2 % 5] if n % 2 else sinus) for n in range(LEARNING)])
        assert near(typical(patients), sinus)

    def test_before_8_beats_a_beat_is_compared_with_itself_and_the_typical_beat_is_not_known(self):
        patients: Patients = {}
        for n in range(LEAST_BEATS - 1):
            prepared = prepare([beat(n, ectopic if n == 3 else sinus)], CONTRACT, patients)
            itself, compared, _ = parts(prepared.x[0])
            assert np.array_equal(itself, compared)
            assert np.ptp(itself) == pytest.approx(1, abs=1e-6)
            assert prepared.known == ("none",)

    def test_from_the_8th_on_it_is_learning_and_learned_when_the_learning_time_is_over(self):
        prepared = prepare([beat(n) for n in range(LEARNING + 5)], CONTRACT, {})
        assert prepared.known == ("none",) * 7 + ("learning",) * (LEARNING - 8) + ("learned",) * 6
        itself, compared, _ = parts(prepared.x[LEAST_BEATS - 1])
        assert not np.array_equal(itself, compared)

    def test_learning_ends_by_time_and_not_by_the_number_of_beats(self):
        slow = [beat(n, r_time_ms=n * 2500) for n in range(140)]
        known = prepare(slow, CONTRACT, {}).known
        assert known.index("learned") == 120  # intervals of 2.5 s are 300 s
        assert prepare(slow, Bedside(learn_s=340), {}).known.index("learned") == 136
        assert prepare(slow, Bedside(learn_s=20), {}).known.index("learned") == 2 * LEAST_BEATS - 1

    @pytest.mark.parametrize("step_ms", [-360_000, 360_000], ids=["late", "ahead"])
    def test_a_beat_at_another_time_does_not_end_it(self, step_ms: int):
        stray = beat(15, r_time_ms=15 * RR_MS + step_ms + 400_000)
        beats = [beat(n, r_time_ms=n * RR_MS + 400_000) for n in range(LEARNING - 1) if n != 15]
        assert "learned" not in prepare([*beats[:15], stray, *beats[15:]], CONTRACT, {}).known

    def test_a_gap_is_not_time_watched(self):
        gap_ms = 360_000
        beats = [beat(n, r_time_ms=n * RR_MS + (n >= 100) * gap_ms) for n in range(LEARNING)]
        known = prepare(beats, CONTRACT, {}).known
        assert known.index("learned") == LEARNING - 1 - (WATCHED_MS - RR_MS) // RR_MS  # the gap counts as WATCHED_MS

    def test_an_ectopic_beat_while_learning_differs_from_the_provisional_typical_beat(self):
        patients: Patients = {}
        feed(patients, [beat(n) for n in range(20)])
        itself, compared, _ = parts(feed(patients, [beat(20, ectopic)])[0])
        assert near(typical(patients), sinus)
        assert np.sqrt(np.square(itself - compared).mean()) > 0.1


class TestFollowing:
    def test_a_slow_change_of_1_percent_a_minute_is_followed(self):
        patients, minutes = learned(), 30
        for n in range(NEXT, NEXT + minutes * 60_000 // RR_MS):
            gain = 1.01 ** ((n - NEXT) * RR_MS / 60_000)
            feed(patients, [beat(n, gain=gain)])
        assert gain > 1.34
        assert near(typical(patients), sinus, gain)
        assert np.ptp(typical(patients)) == pytest.approx(gain * np.ptp(clean(sinus)), rel=0.03)
        assert lead(patients).accepted > 0.9

    def test_ectopic_beats_in_a_row_move_nothing_short_of_the_relearning_rule(self):
        patients = learned()
        before, deviation = typical(patients), lead(patients).deviation
        until_relearned = LEAVING + int(CONTRACT.learn_s * 1000 / RR_MS)
        for n in range(NEXT, NEXT + until_relearned - 1):
            feed(patients, [beat(n, ectopic)])
            assert np.array_equal(typical(patients), before), f"after {n - NEXT + 1} ectopic beats"
        assert lead(patients).deviation == deviation

    @pytest.mark.parametrize("every", [2, 4])
    def test_ectopic_beats_between_normal_ones_move_nothing_however_many(self, every: int):
        mixed, alone = learned(), learned()
        for n in range(NEXT, NEXT + 2000):
            if n % every:
                feed(mixed, [beat(n, ectopic)])
            else:
                feed(mixed, [beat(n)])
                feed(alone, [beat(n)])
        assert not np.array_equal(typical(alone), typical(learned()))
        assert np.array_equal(typical(mixed), typical(alone))
        assert lead(mixed).deviation == lead(alone).deviation

    def test_when_the_old_shape_is_gone_for_the_learning_time_the_new_one_is_learned(self):
        patients = learned()
        new = LEAVING + LEARNING + 5
        feed(patients, [beat(n, ectopic) for n in range(NEXT, NEXT + new)])
        assert near(typical(patients), ectopic)
        prepared = prepare([beat(NEXT + new, ectopic), beat(NEXT + new + 1)], CONTRACT, patients)
        deviations = [np.sqrt(np.square(itself - compared).mean()) for itself, compared, _ in map(parts, prepared.x)]
        assert prepared.known == ("learned", "learned")
        assert deviations[0] < 0.05 < 0.1 < deviations[1]

    def test_who_is_being_learned_keeps_nothing_of_the_batches_but_the_windows(self):
        patients: Patients = {}
        feed(patients, [beat(n) for n in range(10)])
        assert {window.base is None for window in lead(patients).pending} == {True}

    def test_a_new_shape_that_ends_before_the_learning_time_does_is_forgotten(self):
        patients = learned()
        most = LEAVING + LEARNING - 30
        feed(patients, [beat(n, ectopic) for n in range(NEXT, NEXT + most)])
        assert lead(patients).left_ms is not None
        feed(patients, [beat(n) for n in range(NEXT + most, NEXT + most + 50)])
        assert near(typical(patients), sinus)
        assert (lead(patients).left_ms, lead(patients).pending) == (None, [])

    @pytest.mark.parametrize("trouble", ["one late beat", "a clock set ahead", "one beat ahead", "a gap"])
    def test_a_tachycardia_is_not_learned_sooner_for_a_trouble_with_time(self, trouble: str):
        patients = learned()
        before = typical(patients)
        start_ms, rr_ms, step_ms = NEXT * RR_MS, 430, 360_000

        def tachycardia(number: int, later_ms: int = 0) -> Beat:
            return beat(NEXT + number, ectopic, r_time_ms=start_ms + number * rr_ms + later_ms)

        feed(patients, [tachycardia(n) for n in range(LEAVING + 30)])
        assert lead(patients).left_ms is not None
        if trouble == "one late beat":
            feed(patients, [beat(NEXT, r_time_ms=start_ms - step_ms)])
        elif trouble == "one beat ahead":
            feed(patients, [beat(NEXT, ectopic, r_time_ms=start_ms + step_ms)])
        later_ms = step_ms if trouble in ("a clock set ahead", "a gap") else 0
        for n in range(LEAVING + 30, LEAVING + 330):
            itself, compared, _ = parts(feed(patients, [tachycardia(n, later_ms)])[0])
            assert np.abs(itself - compared).max() > 0.2
        assert np.array_equal(typical(patients), before)

    def test_two_senders_whose_clocks_differ_do_not_make_the_time_pass_faster(self):
        patients = learned()
        before = typical(patients)
        for n in range(NEXT, NEXT + LEAVING + 120):
            feed(patients, [beat(n, ectopic), beat(n, ectopic, r_time_ms=n * RR_MS + 300_000)])
        assert np.array_equal(typical(patients), before)

    def test_after_a_clock_was_set_back_the_new_shape_is_watched_from_the_beginning(self):
        """What comes then may be the same beats once more."""
        patients = learned()
        before = typical(patients)
        minutes_4 = [beat(n, ectopic) for n in range(NEXT, NEXT + 300)]
        feed(patients, minutes_4 + minutes_4)
        assert np.array_equal(typical(patients), before)
        feed(patients, [beat(n, ectopic) for n in range(NEXT + 300, NEXT + 600)])
        assert near(typical(patients), ectopic)

    def test_one_beat_moves_the_typical_beat_by_at_most_follow_times_gate_usual_deviations(self):
        moved = [self.moved_by(beat(NEXT, mixture(share))) for share in np.linspace(0, 0.6, 200)]
        bound = CONTRACT.follow * CONTRACT.gate
        assert 0.9 * bound < max(moved) <= bound * 1.0001
        assert moved[-1] == 0

    @given(seed=st.integers(0, 2**32 - 1), size=st.floats(1e-3, 1e3))
    def test_no_window_whatever_moves_it_further(self, seed: int, size: float):
        window = np.random.default_rng(seed).normal(size=CONTRACT.samples + 2 * CONTRACT.spare) * size
        centre = slice(CONTRACT.spare, CONTRACT.spare + CONTRACT.samples)
        patients = learned()
        scale = lead(patients).deviation * np.ptp(typical(patients))
        window = (window * scale).astype(np.float32)
        window[centre] += typical(patients)
        assert self.moved_by(beat(NEXT), window) <= CONTRACT.follow * CONTRACT.gate * 1.0001

    @staticmethod
    def moved_by(one: Beat, window: np.ndarray | None = None) -> float:
        """How far a beat moves the typical beat, in usual deviations."""
        patients = learned()
        before, deviation = typical(patients), lead(patients).deviation
        if window is None:
            feed(patients, [one])
        else:
            see(lead(patients), window, one, CONTRACT)
        return float(np.sqrt(np.square(typical(patients) - before).mean()) / np.ptp(before) / deviation)


def mixture(share: float) -> Shape:
    return lambda t: (1 - share) * sinus(t) + share * ectopic(t)


class TestInput:
    def test_it_is_the_beat_the_typical_beat_the_rr_interval_and_the_pauses(self):
        patients = learned()
        expected = typical(patients) / np.ptp(typical(patients))
        x = feed(patients, [beat(NEXT)])
        assert (x.shape, x.dtype) == ((1, 2 * CONTRACT.samples + 2), np.float32)
        itself, compared, rr = parts(x[0])
        np.testing.assert_allclose(compared, expected, atol=1e-6)
        np.testing.assert_allclose(itself, expected, atol=0.1)
        assert rr == pytest.approx(0, abs=0.01)
        assert x[0, -1] == 0

    def test_a_baseline_that_bends_during_the_beat_changes_nothing(self):
        one = beat(NEXT)
        t = np.arange(len(one.samples)) / one.fs_hz
        bent = replace(one, samples=(one.samples + 0.4 * t - 0.5 * t**2).astype(np.float32))
        np.testing.assert_allclose(feed(learned(), [bent]), feed(learned(), [one]), atol=0.01)

    def test_who_deviates_much_as_a_rule_is_given_more_room(self):
        calm, restless = learned(), learned()
        lead(restless).deviation *= 3
        far = [np.subtract(*parts(feed(patients, [beat(NEXT, ectopic)])[0])[:2]).std() for patients in (calm, restless)]
        assert far[1] < 0.6 * far[0]

    @pytest.mark.parametrize("moved_ms", [-32, 32])
    def test_a_window_moved_by_32_ms_gives_nearly_the_same_input_and_the_rr_is_corrected(self, moved_ms: int):
        """The same signal with its R marked elsewhere: 8 samples of 250 Hz, 4 of the model's."""
        one, after = beat(NEXT, fs_hz=250.0), beat(NEXT + 1)
        moved = replace(
            one,
            r_time_ms=one.r_time_ms + moved_ms,
            r_index=one.r_index + moved_ms // 4,
            rr_ms=np.append(one.rr_ms[:-1], RR_MS + moved_ms).astype(np.float32),
        )
        after_moved = replace(
            after, rr_ms=np.array([*after.rr_ms[:-2], RR_MS + moved_ms, RR_MS - moved_ms], np.float32)
        )
        expected, found = feed(learned(), [one, after]), feed(learned(), [moved, after_moved])
        np.testing.assert_allclose(found, expected, atol=0.03)
        assert abs(RR_WEIGHT * log(1 + moved_ms / RR_MS) / 0.1) > 0.1  # what the RR would be uncorrected

    def test_a_window_moved_further_than_that_is_another_beat(self):
        one = beat(NEXT, fs_hz=250.0)
        expected, found = feed(learned(), [one]), feed(learned(), [replace(one, r_index=one.r_index - 25)])
        assert np.abs(found - expected).max() > 0.3

    def test_inputs_are_the_same_one_by_one_and_all_together(self):
        beats = [beat(n, ectopic if n % 7 == 3 else sinus) for n in range(LEARNING + 100)]
        alone: Patients = {}
        together: Patients = {}
        np.testing.assert_allclose(prepare(beats, CONTRACT, together).x, feed(alone, beats), atol=1e-5)
        np.testing.assert_allclose(typical(together), typical(alone), atol=1e-5)

    def test_other_patients_in_the_same_call_change_nothing(self):
        mine = [beat(n) for n in range(LEARNING + 20)]
        others = [beat(n, ectopic, patient="other", fs_hz=250.0) for n in range(LEARNING + 20)]
        mixed = [one for pair in zip(others, mine, strict=True) for one in pair]
        both: Patients = {}
        alone: Patients = {}
        np.testing.assert_allclose(prepare(mixed, CONTRACT, both).x[1::2], prepare(mine, CONTRACT, alone).x, atol=1e-5)
        assert near(typical(both), sinus)

    @pytest.mark.parametrize("after", [0, 5, 100, NEXT])
    def test_an_old_or_repeated_beat_changes_no_state_and_is_still_compared(self, after: int):
        patients: Patients = {}
        (*_, last) = feed(patients, [beat(n) for n in range(after + 1)])
        before = state(patients)
        again = feed(patients, [beat(after), beat(max(0, after - 60), ectopic), beat(after, ectopic)])
        assert state(patients) == before
        np.testing.assert_allclose(parts(again[0])[0], parts(last)[0], atol=0.02)

    def test_a_repeated_beat_has_the_rr_of_the_first_time(self):
        patients = learned()
        early = beat(NEXT, rr_ms=np.array([800.0] * 20 + [480.0], np.float32))
        first, again = feed(patients, [early, early])
        assert parts(again)[2] == parts(first)[2] < -1

    @pytest.mark.parametrize("ahead_ms", [600_000, 253_402_300_799_999 - NEXT * RR_MS])
    def test_a_single_time_in_the_future_makes_no_patient_deaf(self, ahead_ms: int):
        patients = learned()
        feed(patients, [beat(NEXT, r_time_ms=NEXT * RR_MS + ahead_ms)])
        feed(patients, [beat(NEXT + n) for n in range(1, 12)])
        early = feed(patients, [beat(NEXT + 12, ectopic, rr_ms=np.array([800.0] * 20 + [480.0], np.float32))])[0]
        assert lead(patients).known in ("learning", "learned")
        assert parts(early)[2] < -1
        assert np.abs(parts(early)[0] - parts(early)[1]).max() > 0.2

    @pytest.mark.parametrize("ahead_ms", [150_000, 3_600_000, 253_402_300_799_999 - 2 * NEXT * RR_MS])
    def test_after_a_clock_was_set_back_learning_goes_on_when_a_minute_of_beats_says_so(self, ahead_ms: int):
        made = learned()
        patients = {"p": {"MLII": replace(lead(made), last_ms=NEXT * RR_MS + ahead_ms)}}
        minute = [beat(NEXT + n) for n in range(AGREED)]
        feed(patients, minute[:-1])
        assert lead(patients).count == NEXT
        feed(patients, minute[-1:])
        feed(patients, [beat(NEXT + AGREED + n) for n in range(5)])
        assert lead(patients).count == NEXT + 6
        assert lead(patients).last_ms == (NEXT + AGREED + 4) * RR_MS
        assert lead(patients).known == "learned"
        assert lead(patients).aside is None

    @pytest.mark.parametrize("step_ms", [-360_000, 13 * 3_600_000, 10**13])
    def test_a_single_beat_at_another_time_is_judged_and_changes_nothing(self, step_ms: int):
        patients = learned()
        before = state(patients)
        stray = beat(NEXT, ectopic, r_time_ms=NEXT * RR_MS + step_ms)
        prepared = prepare([stray], CONTRACT, patients)
        itself, compared, _ = parts(prepared.x[0])
        assert prepared.known == ("learned",)
        assert np.abs(itself - compared).max() > 0.2
        assert state(patients) == before
        assert prepare([beat(NEXT)], CONTRACT, patients).known == ("learned",)
        assert lead(patients).aside is None

    @pytest.mark.parametrize("chunk", [1, 10, 70])
    @pytest.mark.parametrize("apart_ms", [300_000, 13 * 3_600_000])
    def test_two_senders_whose_clocks_differ_are_both_judged(self, apart_ms: int, chunk: int):
        patients: Patients = {}
        for first in range(0, LEARNING + 2 * chunk, chunk):
            numbers = range(first, first + chunk)
            one = prepare([beat(n) for n in numbers], CONTRACT, patients)
            other = prepare([beat(n, r_time_ms=n * RR_MS + apart_ms) for n in numbers], CONTRACT, patients)
        assert (one.known, other.known) == (("learned",) * chunk,) * 2
        for later_ms in (0, apart_ms):
            odd = beat(first + chunk, ectopic, r_time_ms=(first + chunk) * RR_MS + later_ms)
            itself, compared, _ = parts(feed(patients, [odd])[0])
            assert np.abs(itself - compared).max() > 0.2

    @pytest.mark.parametrize("seen", [1, 7])
    def test_a_clock_that_is_set_right_in_the_first_beats_costs_no_more_than_these(self, seen: int):
        """A monitor that boots in 1970, or an hour ahead."""
        for hours in (-1, 24 * 365 * 50):
            start_ms = 2 * 3_600_000 + hours * 3_600_000
            patients: Patients = {}
            feed(patients, [beat(n, r_time_ms=2 * 3_600_000 + n * RR_MS) for n in range(seen)])
            after = prepare(
                [beat(n, r_time_ms=start_ms + n * RR_MS) for n in range(seen, seen + 20)], CONTRACT, patients
            )
            assert after.known == ("none",) * 7 + ("learning",) * 13

    def test_of_more_leads_than_a_record_holds_the_first_are_learned_and_the_others_judged_by_rhythm(
        self, caplog: pytest.LogCaptureFixture
    ):
        patients: Patients = {}
        patients_module._say_too_many_leads.cache_clear()
        for n in range(LEARNING):
            all_leads = [beat(n, lead=f"L{number}") for number in range(MAX_LEADS + 3)]
            prepared = prepare(all_leads, CONTRACT, patients)
        assert prepared.known == ("learned",) * MAX_LEADS + ("none",) * 3
        assert sorted(patients["p"]) == sorted(f"L{n}" for n in range(MAX_LEADS))
        early = beat(LEARNING, lead=f"L{MAX_LEADS}", rr_ms=np.array([800.0] * 20 + [480.0], np.float32))
        assert parts(feed(patients, [early])[0])[2] < -1
        (said,) = [record.getMessage() for record in caplog.records]
        assert said == "a patient has more than 12 leads: beats of the others are judged by their rhythm alone"

    def test_a_lead_silent_for_the_learning_time_makes_room_for_another(self):
        patients: Patients = {}
        feed(patients, [beat(n, lead=f"L{n}") for n in range(MAX_LEADS)])
        silent_ms = int(CONTRACT.learn_s * 1000)
        assert feed(patients, [beat(99, lead="new", r_time_ms=silent_ms)]).any()
        assert "new" not in patients["p"]
        feed(patients, [beat(99, lead="new", r_time_ms=silent_ms + 1)])
        assert sorted(patients["p"]) == sorted(["new", *(f"L{n}" for n in range(1, MAX_LEADS))])

    def test_a_lead_whose_only_stamp_is_wrong_does_not_keep_the_place_that_it_took(self):
        patients: Patients = {}
        names = [f"L{n}" for n in range(MAX_LEADS)]
        feed(patients, [beat(n, lead=name) for n in range(LEARNING) for name in names])
        feed(patients, [beat(LEARNING, lead="wrong", r_time_ms=LEARNING * RR_MS + 3_600_000)])
        feed(patients, [beat(n, lead=name) for n in range(LEARNING, LEARNING + 10) for name in names])
        assert sorted(patients["p"]) == sorted(names)
        assert sum(one.learned for one in patients["p"].values()) == MAX_LEADS - 1

    def test_a_beat_on_which_ecgwatch_fails_is_refused_and_the_others_go_on(self):
        patients = learned()
        patients["bad"] = {"MLII": Patient(first_ms=0, last_ms=0, typical=np.zeros(3, np.float32), learned=True)}
        beats = [beat(NEXT), beat(NEXT, patient="bad", r_time_ms=600_000), beat(NEXT + 1)]
        for _ in range(3):
            prepared = prepare(beats, CONTRACT, patients)
            assert [(number, error.reason) for number, error in prepared.refused.items()] == [(1, "internal")]
        assert prepared.kept.tolist() == [0, 2]
        assert lead(patients).count == NEXT + 2
        bad = patients["bad"]["MLII"]
        assert bad.last_ms - bad.first_ms == WATCHED_MS  # the gap was left out once, not with every attempt

    def test_a_beat_beside_a_gap_of_the_signal_is_refused_and_nothing_is_learned_of_it(self):
        patients: Patients = {}
        samples = beat(3).samples.copy()
        samples[100:105] = np.nan
        torn = replace(beat(3), samples=samples)
        prepared = prepare([beat(0), torn, *(beat(n) for n in range(4, 20))], CONTRACT, patients)
        assert (prepared.refused[1].reason, lead(patients).count) == ("not-finite", 17)
        assert np.isfinite(prepared.x).all()
        assert near(typical(patients), sinus)

    def test_a_recording_without_noise_is_followed_too(self):
        def perfect(number: int, gain: float = 1.0) -> Beat:
            t = np.arange(-180, 270) / 360
            return replace(beat(number), samples=(gain * sinus(t)).astype(np.float32))

        patients: Patients = {}
        feed(patients, [perfect(n) for n in range(LEARNING)])
        assert lead(patients).known == "learned"
        feed(patients, [perfect(LEARNING + n, 1 + n / 2000) for n in range(400)])
        assert np.ptp(typical(patients)) > 1.1 * np.ptp(clean(sinus))

    @pytest.mark.parametrize("fs_hz", [250.0, 500.0])
    def test_another_sampling_frequency_gives_nearly_the_same_input(self, fs_hz: float):
        def quiet(rate: float, shape: Shape) -> Beat:
            t = np.arange(-round(0.5 * rate), round(0.75 * rate)) / rate
            return replace(beat(NEXT, shape, fs_hz=rate), samples=shape(t).astype(np.float32))

        for shape in (sinus, ectopic):
            expected, found = feed(learned(), [quiet(360.0, shape)]), feed(learned(), [quiet(fs_hz, shape)])
            np.testing.assert_allclose(found, expected, atol=0.01)

    def test_no_beats_give_an_empty_array(self):
        prepared = prepare([], CONTRACT, {})
        assert (prepared.x.shape, prepared.known) == ((0, CONTRACT.length), ())


class TestRR:
    @staticmethod
    def rr(*intervals_ms: float) -> float:
        one = beat(NEXT, rr_ms=np.array(intervals_ms, np.float32))
        return parts(feed(learned(), [one])[0])[2]

    def test_that_of_a_premature_beat_is_strongly_negative(self):
        assert self.rr(*[800] * 20, 710) == pytest.approx(-1, abs=0.1)
        assert self.rr(*[800] * 20, 480) < -3

    def test_that_of_a_late_beat_is_positive_and_bounded(self):
        assert self.rr(*[800] * 20, 820) == pytest.approx(0.19, abs=0.01)
        assert self.rr(*[800] * 20, 1600) == pytest.approx(RR_WEIGHT * RR_LIMITS[1])
        assert self.rr(*[800] * 20, 30_000) == pytest.approx(RR_WEIGHT * RR_LIMITS[1])

    def test_that_of_the_first_beats_is_0(self):
        patients: Patients = {}
        x = feed(patients, [beat(0), beat(1)])
        assert x[:, -2].tolist() == [0, 0]  # no interval, and one with none to compare

    def test_an_early_beat_counts_less_in_an_irregular_rhythm(self):
        irregular = [800 * (1.3 if n % 2 else 0.75) for n in range(20)]
        assert -0.9 < self.rr(*irregular, 640) < -0.2

    def test_only_the_recent_intervals_are_those_it_is_compared_with(self):
        assert self.rr(*[1200] * 20, *[600] * 10, 600) == pytest.approx(0, abs=1e-6)
        assert abs(self.rr(*[1200] * 20, *[600] * 4, 600)) > 0.5

    def test_an_absurd_interval_stays_within_bounds(self):
        assert self.rr(*[800] * 20, 1e-3) == pytest.approx(self.rr(*[800] * 20, 100))
        assert self.rr(*[1e30] * 20, 1e-3) == pytest.approx(RR_WEIGHT * RR_LIMITS[0])


class TestPauses:
    @staticmethod
    def pauses(*intervals_ms: float) -> float:
        return float(feed(learned(), [beat(NEXT, rr_ms=np.array(intervals_ms, np.float32))])[0, -1])

    def test_a_rhythm_without_a_pause_has_none_however_slow(self):
        assert self.pauses(*[1990] * 30) == 0

    def test_they_are_the_share_of_the_recent_time(self):
        assert self.pauses(*[1000] * 27, 3000, 3000, 3000) == pytest.approx(PAUSE_WEIGHT * 9 / 36)
        assert self.pauses(*[1000] * 27, 3000) == pytest.approx(PAUSE_WEIGHT * 3 / 30)

    def test_a_gap_in_the_signal_is_no_pause_without_end(self):
        assert self.pauses(*[1000] * 30, 3_600_000) == pytest.approx(PAUSE_WEIGHT * 10 / 40)

    def test_what_lies_before_the_recent_intervals_is_forgotten(self):
        assert self.pauses(3000, *[1000] * 40) == 0


class TestForgetting:
    def test_after_a_pause_longer_than_forget_s_the_learning_time_starts_anew(self):
        patients = learned()
        later_ms = int(CONTRACT.forget_s * 1000) + 1
        back = [beat(n, ectopic, r_time_ms=n * RR_MS + later_ms) for n in range(NEXT - 1, NEXT - 1 + LEARNING + 5)]
        prepared = prepare(back, CONTRACT, patients)
        assert prepared.known == ("learned",) * (LEARNING + 5)
        far = [np.abs(itself - compared).max() for itself, compared, _ in map(parts, prepared.x)]
        assert min(far[: LEARNING - 1]) > 0.2 > 0.1 > max(far[LEARNING - 1 :])  # judged by what was known, until then
        assert near(typical(patients), ectopic)
        assert lead(patients).count == LEARNING + 5

    def test_who_was_not_learned_yet_starts_anew_after_a_minute(self):
        patients: Patients = {}
        feed(patients, [beat(n) for n in range(20)])
        later_ms = int(CONTRACT.forget_s * 1000) + 1
        known = prepare(
            [beat(n, ectopic, r_time_ms=n * RR_MS + later_ms) for n in range(20, 20 + AGREED)], CONTRACT, patients
        ).known
        assert known == ("learning",) * AGREED
        assert near(typical(patients), ectopic)

    @pytest.mark.parametrize("hours", [-24, 24])
    def test_a_message_of_another_day_costs_a_learned_patient_nothing(self, hours: int):
        """A gateway that flushes its buffer, or another sender with a wrong date: minutes of beats at once."""
        patients = learned()
        numbers = range(NEXT, NEXT + 2 * AGREED)
        feed(patients, [beat(n, ectopic, r_time_ms=n * RR_MS + hours * 3_600_000 + 10**8) for n in numbers])
        feed(patients, [beat(n) for n in range(NEXT, NEXT + LEARNING)])
        assert lead(patients).known == "learned"
        assert near(typical(patients), sinus)

    def test_beats_far_apart_start_anew_too(self):
        patients = learned()
        later_ms = int(CONTRACT.forget_s * 1000) + 1
        known = prepare(
            [beat(NEXT, ectopic, r_time_ms=n * 90_000 + NEXT * RR_MS + later_ms) for n in range(105)],
            CONTRACT,
            patients,
        ).known
        assert known == ("learned",) * 105
        assert near(typical(patients), ectopic)

    def test_a_pause_of_just_forget_s_does_not(self):
        patients = learned()
        late = beat(NEXT - 1)
        late = replace(late, r_time_ms=late.r_time_ms + int(CONTRACT.forget_s * 1000))
        assert prepare([late], CONTRACT, patients).known == ("learned",)
        assert lead(patients).count == NEXT + 1

    def test_another_lead_is_learned_separately(self):
        patients = learned()
        before = deepcopy(lead(patients))
        prepared = prepare([beat(n, ectopic, lead="V1") for n in range(NEXT, NEXT + 20)], CONTRACT, patients)
        assert prepared.known == ("none",) * 7 + ("learning",) * 13
        assert near(typical(patients, "V1"), ectopic)
        assert state({"p": {"MLII": lead(patients)}}) == state({"p": {"MLII": before}})
        assert prepare([beat(NEXT + 20)], CONTRACT, patients).known == ("learned",)


class TestSaved:
    @pytest.mark.parametrize("ectopics", [0, 150])
    @pytest.mark.parametrize("beats", [1, 5, 20, 200, NEXT])
    def test_what_was_saved_as_json_gives_bit_identical_further_inputs(self, beats: int, ectopics: int):
        patients: Patients = {}
        feed(patients, [beat(n, sinus if n < beats else ectopic) for n in range(beats + ectopics)])
        (message,) = state(patients)
        decoded = messages.decode_baseline(messages.encode(message))
        assert decoded == message
        restored = {decoded.patient: from_message(decoded, CONTRACT)}
        further = [beat(n, ectopic if n % 5 == 0 else sinus, gain=1.02) for n in range(beats + ectopics, NEXT + 400)]
        assert np.array_equal(feed(restored, further), feed(patients, further))
        assert state(restored) == state(patients)

    def test_the_shifts_of_the_recent_beats_are_saved(self):
        patients = learned()
        one = beat(NEXT, fs_hz=250.0)
        feed(patients, [replace(one, r_index=one.r_index + 8)])
        restored = {"p": from_message(state(patients)[0], CONTRACT)}
        x = feed(restored, [beat(NEXT + 1)])
        assert np.array_equal(x, feed(patients, [beat(NEXT + 1)]))
        assert x[0, -2] > 0.1  # moved back by 32 ms, the beat before leaves a longer interval

    def test_a_lead_while_a_new_shape_is_learned_comes_back_with_what_was_kept_of_it(self):
        patients = learned()
        feed(patients, [beat(n, ectopic) for n in range(NEXT, NEXT + LEAVING + 40)])
        back = from_message(state(patients)[0], CONTRACT)["MLII"]
        assert (back.left_ms, len(back.pending)) == (lead(patients).left_ms, len(lead(patients).pending))
        assert len(back.pending) > 30

    def test_every_lead_comes_back(self):
        patients = learned()
        feed(patients, [beat(n, ectopic, lead="V1") for n in range(NEXT, NEXT + 20)])
        (message,) = state(patients)
        assert message.patient == "p"
        assert {name: one.known for name, one in from_message(message, CONTRACT).items()} == {
            "MLII": "learned",
            "V1": "learning",
        }

    @pytest.mark.parametrize("beats", [3, 20, NEXT])
    @pytest.mark.parametrize(
        "other",
        [Bedside(after_s=0.4), Bedside(fs_hz=250.0), Bedside(fs_hz=250.0, before_s=0.152, after_s=0.224)],
        ids=["another length", "another rate", "another rate, the same length"],
    )
    def test_what_another_contract_made_is_left_out(self, other: Bedside, beats: int):
        patients: Patients = {}
        feed(patients, [beat(n) for n in range(beats)])
        (message,) = state(patients)
        assert from_message(message, other) == {}
        assert list(from_message(message, CONTRACT)) == ["MLII"]


class TestRefusal:
    @staticmethod
    def reason(one: Beat, contract: Bedside = CONTRACT) -> str:
        patients: Patients = {}
        prepared = prepare([one], contract, patients)
        assert (len(prepared.x), len(prepared.kept), prepared.known) == (0, 0, ())
        assert patients == {}  # nothing is learned of it
        return prepared.refused[0].reason

    def test_signal_that_is_too_short_before_r(self):
        one = beat(0, fs_hz=125.0)
        enough = CONTRACT.spare + round(CONTRACT.before_s * 125)
        for before, fits in ((enough, True), (enough - 2, False)):
            cut = replace(one, samples=one.samples[one.r_index - before :], r_index=before)
            if fits:
                feed({}, [cut])
            else:
                assert self.reason(cut) == "too-short"

    def test_signal_that_is_too_short_after_r(self):
        one = beat(0, fs_hz=125.0)
        enough = CONTRACT.spare + round(CONTRACT.after_s * 125)  # samples from R on
        feed({}, [replace(one, samples=one.samples[: one.r_index + enough])])
        assert self.reason(replace(one, samples=one.samples[: one.r_index + enough - 1])) == "too-short"

    def test_a_flat_line(self):
        assert self.reason(replace(beat(0), samples=np.full(450, 1.5, np.float32))) == "flat"

    def test_a_flat_line_after_a_lively_past(self):
        one = beat(0)
        start = one.r_index - round(0.45 * one.fs_hz)
        samples = np.where(np.arange(len(one.samples)) < start, one.samples, 2).astype(np.float32)
        assert self.reason(replace(one, samples=samples)) == "flat"

    def test_a_lead_that_the_model_does_not_know(self):
        assert self.reason(beat(0, lead="V1"), Bedside(leads=("MLII", "II"))) == "lead"
        feed({}, [beat(0, lead="V1")])

    def test_each_beat_is_refused_alone_and_the_others_keep_their_place(self):
        short, flat = (
            replace(beat(1), samples=beat(1).samples[:200]),
            replace(beat(3), samples=np.zeros(450, np.float32)),
        )
        contract = Bedside(leads=("MLII",))
        prepared = prepare([beat(0), short, beat(2), flat, beat(4, lead="V1"), beat(5)], contract, {})
        assert prepared.kept.tolist() == [0, 2, 5]
        assert {number: error.reason for number, error in prepared.refused.items()} == {
            1: "too-short",
            3: "flat",
            4: "lead",
        }
        expected = prepare([beat(0), beat(2), beat(5)], contract, {})
        np.testing.assert_allclose(prepared.x, expected.x, atol=1e-5)

    def test_no_text_holds_signal_or_identity(self):
        one = beat(0, lead="secret-lead", patient="secret-patient")
        assert "secret" not in str(prepare([one], Bedside(leads=("II",)), {}).refused[0])


def test_another_contract_is_prepared_as_ever_and_nothing_is_learned():
    patients: Patients = {}
    made = [replace(beat(5), samples=np.pad(beat(5).samples, (0, 400), mode="edge"))]
    prepared = prepare(made, contracts.Contract(), patients)
    assert np.array_equal(prepared.x, contracts.prepare(made, contracts.Contract()).x)
    assert (prepared.known, patients) == ((), {})


@pytest.mark.parametrize("typical", [b"abc", b"", b"\0" * 377, np.full(CONTRACT.samples, np.nan, "<f4").tobytes()])
def test_a_saved_typical_beat_that_is_none_is_left_out_and_stops_nobody(typical: bytes):
    patients = learned()
    (saved,) = state(patients)
    damaged = msgspec.structs.replace(saved, leads=[msgspec.structs.replace(saved.leads[0], typical=typical)])
    found = from_message(damaged, CONTRACT)
    assert found == {}
    feed({"p": found}, [beat(NEXT)])


@pytest.mark.parametrize(
    "change",
    [
        {"stride": 0},
        {"stride": 2**70},
        {"beats": -1},
        {"accepted": 1.5},
        {"accepted": -0.1},
        {"deviation": -1.0},
        {"deviation": 1e300},
        {"last_ms": -1},
        {"first_ms": 2**60},
        {"left_ms": -5},
        {"known": "none"},
        {"typical": np.full(CONTRACT.samples, 1e38, "<f4").tobytes()},
        {"pending": [b""]},
        {"pending": [bytes(4 * CONTRACT.samples)] * 1000},
        {"shifts": [(2**70, 0.0)]},
        {"shifts": [(0, 1e300)]},
        {"shifts": [(0, 0.0)] * 1000},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_saved_lead_with_a_number_that_is_never_saved_is_left_out(change: dict[str, object]):
    (saved,) = state(learned())
    damaged = msgspec.structs.replace(saved, leads=[msgspec.structs.replace(saved.leads[0], **change)])
    assert list(from_message(saved, CONTRACT)) == ["MLII"]
    assert from_message(damaged, CONTRACT) == {}


def test_preparing_without_what_is_known_of_patients_names_the_function_that_does():
    with pytest.raises(BundleError, match=r"ecgwatch\.patients\.prepare"):
        contracts.prepare([beat(0)], CONTRACT)


@pytest.mark.parametrize(
    ("r_time_ms", "stalled"),
    [
        (lambda number: number * RR_MS, 0),
        (lambda number: number * RR_MS * 10, 0),  # every tenth beat is sent
        (lambda number: number * RR_MS // 1000, 100),  # seconds
        (lambda number: 0, 100),
        (lambda number: number * RR_MS if number < 50 else 0, 50),
    ],
    ids=["milliseconds", "every tenth", "seconds", "none", "from some time on"],
)
def test_beats_whose_time_does_not_go_on_as_their_rr_intervals_do_are_counted(
    r_time_ms: Callable[[int], int], stalled: int
):
    patients: Patients = {}
    feed(patients, [replace(beat(number), r_time_ms=r_time_ms(number)) for number in range(1, 101)])
    found = patients["p"]["MLII"].stalled
    assert abs(found - stalled) <= 1  # the first one has none before it


def test_a_typical_beat_of_another_window_of_the_same_length_is_left_out():
    patients: Patients = {}
    feed(patients, [beat(number) for number in range(20)])
    message = to_message("p", patients["p"], CONTRACT)
    other = Bedside(before_s=CONTRACT.before_s + 0.048, after_s=CONTRACT.after_s - 0.048)
    assert other.samples == CONTRACT.samples
    assert set(from_message(message, CONTRACT)) == {"MLII"}
    assert from_message(message, other) == {}
    unsaid = [msgspec.structs.replace(lead, r_index=None) for lead in message.leads]
    assert set(from_message(msgspec.structs.replace(message, leads=unsaid), CONTRACT)) == {"MLII"}


def test_it_is_found_though_a_third_of_the_first_beats_are_ectopic_of_one_shape_without_any_noise():
    patients: Patients = {}
    same = beat(0, ectopic)
    feed(patients, [beat(n, samples=same.samples) if n % 3 == 2 else beat(n) for n in range(LEARNING)])
    assert near(typical(patients), sinus)


def test_a_late_beat_of_one_lead_too_many_drives_out_none_that_is_learned():
    patients: Patients = {}
    names = [f"L{n}" for n in range(MAX_LEADS)]
    feed(patients, [beat(1000 + n, lead=name) for n in range(LEAST_BEATS) for name in names])
    feed(patients, [beat(0, lead="late")])  # 13 minutes before: of a buffer that was sent at last
    assert sorted(patients["p"]) == sorted(names)


def test_a_pause_of_just_two_seconds_is_one():
    x = feed(learned(), [beat(NEXT, rr_ms=np.array([1000] * 28 + [2000], np.float32))])
    assert x[0, -1] == pytest.approx(PAUSE_WEIGHT * 2 / 30)


def test_four_intervals_tell_an_irregular_rhythm():
    def rr(*intervals_ms: float) -> float:
        return parts(feed(learned(), [beat(NEXT, rr_ms=np.array(intervals_ms, np.float32))])[0])[2]

    assert rr(600, 1040, 600, 1040, 640) > -0.9


def test_a_clock_that_is_set_back_while_learning_costs_no_more_than_the_learning_time():
    patients: Patients = {}
    feed(patients, [beat(n, r_time_ms=n * RR_MS + 3_600_000) for n in range(20)])
    known = prepare([beat(20 + n) for n in range(AGREED + LEARNING)], CONTRACT, patients).known
    assert (known[AGREED], known[-1]) == ("learning", "learned")


def test_a_clock_that_is_set_back_after_a_beat_with_a_wrong_stamp_is_noticed_too():
    patients = learned()
    feed(patients, [beat(NEXT, r_time_ms=NEXT * RR_MS + 10**11)])
    feed(patients, [beat(n) for n in range(1, AGREED + 6)])  # ten minutes back
    assert lead(patients).last_ms == (AGREED + 5) * RR_MS


def test_the_typical_beat_is_that_of_the_whole_learning_time_and_not_of_its_end():
    patients: Patients = {}
    feed(patients, [beat(n, ectopic if n >= LEARNING - 80 else sinus) for n in range(LEARNING)])
    assert lead(patients).known == "learned"
    assert near(typical(patients), sinus)


@pytest.mark.parametrize("factor", [0.6, 1.6])
def test_the_usual_deviation_follows_slow_change_too(factor: float):
    def restless(number: int, times: float) -> Beat:
        chance = np.random.default_rng(number)
        t = np.arange(-180, 270) / 360
        signal = sinus(t) + 0.03 * times * chance.normal(size=len(t))
        return replace(beat(number), samples=signal.astype(np.float32))

    patients: Patients = {}
    feed(patients, [restless(n, 1.0) for n in range(LEARNING)])
    before = lead(patients).deviation
    feed(patients, [restless(n, factor) for n in range(LEARNING, LEARNING + 300)])
    assert lead(patients).deviation == pytest.approx(factor * before, rel=0.1)


@pytest.mark.parametrize("moved", [-8, 8])
def test_a_typical_beat_is_not_smeared_where_r_is_marked_elsewhere(moved: int):
    """32 ms early or late, at 250 Hz."""
    patients = learned()
    beats = [beat(n, fs_hz=250.0) for n in range(NEXT, NEXT + 300)]
    feed(patients, [replace(one, r_index=one.r_index + moved) for one in beats])
    assert lead(patients).accepted > 0.9
    assert near(typical(patients), sinus)


@pytest.mark.parametrize("rounded_ms", [-1, 1])
def test_a_window_moved_is_found_again_though_times_of_r_are_rounded(rounded_ms: int):
    one, after = beat(NEXT, fs_hz=250.0), beat(NEXT + 1)
    moved = replace(one, r_time_ms=one.r_time_ms + 32, r_index=one.r_index + 8)
    later = replace(
        after, r_time_ms=after.r_time_ms + rounded_ms, rr_ms=np.append(after.rr_ms[:-1], RR_MS - 32).astype(np.float32)
    )
    rr = parts(feed(learned(), [moved, later])[1])[2]
    assert rr == pytest.approx(0, abs=0.03)


def test_irregularity_is_that_of_all_recent_intervals():
    def rr(*intervals_ms: float) -> float:
        return parts(feed(learned(), [beat(NEXT, rr_ms=np.array(intervals_ms, np.float32))])[0])[2]

    irregular = [800 * (1.3 if n % 2 else 0.75) for n in range(20)]
    assert rr(*irregular, *[800] * 4, 640) > -0.9


@pytest.mark.parametrize(("amplitude_mv", "flat"), [(0.01, False), (0.0005, True)])
def test_a_small_signal_is_judged_and_only_one_below_a_microvolt_is_flat(amplitude_mv: float, flat: bool):
    t = np.arange(-180, 270) / 360
    small = replace(beat(0), samples=(amplitude_mv * sinus(t) / np.ptp(sinus(t))).astype(np.float32))
    refused = prepare([small], CONTRACT, {}).refused
    assert [error.reason for error in refused.values()] == (["flat"] if flat else [])
