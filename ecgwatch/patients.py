"""What is known of one patient, and model inputs from it: pure, time comes with the beats.

A beat is judged relative to its own patient: what differs between people is larger than what differs between a normal
and an ectopic beat of one person. Of each patient and lead this module learns, without labels,

- the typical beat, from the first minutes: the median of those beats that lie around the densest one (`densest`), so
  that half of them may be ectopic where these are as noisy as the others or of several shapes, and a third in any case;
- the usual deviation: how far beats commonly lie from it, root mean square, relative to its amplitude.

Afterwards both follow slow change (posture, electrode) and nothing else: a beat within `gate` usual deviations moves
the typical beat by `follow` of the way to itself, any other beat moves nothing. So ectopic beats are never learned,
however many; the bound of what can be: per beat `follow * gate` usual deviations. One thing else is: where fewer than
`LEAST_ACCEPTED` of the beats have been within the gate for `learn_s`, the old shape has gone (a new conduction block,
an electrode put elsewhere), and the typical beat is learned anew from those that came meanwhile. Until then each of
them may be an alert.

Such times are times watched: between two beats no more counts than `WATCHED_MS`, so that neither a gap nor a clock that
was set makes a tachycardia of a minute the typical beat. A beat at quite another time, by more than `forget_s` later or
`SET_BACK_MS` earlier, is judged by what is known and changes nothing. Only where such beats are all that comes for
`AGREED_MS`, the clock was set back; or the patient was away, and what was learned of them aside is what is known: of a
learned patient when that is learned too.

A model input (`beats.Bedside`) is the beat, the typical beat, the RR interval against the recent ones, and pauses:

    beat      T + (x - T) (USUAL / d)^RELATIVE, in units of T's amplitude: x the window, shifted by up to `align_s` to
              where it lies nearest to T; x - T without its parabola of least squares, which is the baseline's wander;
              d the usual deviation. Who deviates much as a rule is given more room.
    typical   T in units of its amplitude
    rr        log(RR / median of the recent RR) / (LEAST_IRREGULARITY + their median absolute deviation), limited
    pauses    share of the recent time (40 RR) that passed in RR intervals of 2 s or more: the one absolute number. A
              patient whose every beat is ill has an ill typical beat, and is told by nothing that is relative to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ecgwatch import beats as contracts
from ecgwatch.beats import Bedside, Contract, ImageContract, Prepared
from ecgwatch.errors import internal
from ecgwatch.logs import failed, log
from ecgwatch.messages import Beat, Known

LEAST_BEATS = 8  # before so many there is no typical beat: a beat is compared with itself, and only its RR can tell
PENDING = 128  # windows kept while learning; then every other one goes, and of later ones every other is taken
USUAL = 0.03  # usual deviation of a calm recording, relative to the amplitude
LEAST_DEVIATION = 0.003
LEAST_AMPLITUDE = 1e-3  # millivolts
RELATIVE = 0.6
LEAST_IRREGULARITY = 0.1  # added to the median absolute deviation of log RR
RR_LIMITS = (-12.0, 0.5)  # of the ratio; a long interval tells little: beats after a pause are normal
RR_WEIGHT = 0.78  # a beat 12 % early in a regular rhythm then weighs about 1, where a typical beat's energy is 3
LONGEST_PAUSE_MS = 10_000.0  # what is longer is rather a gap in the signal, and counts as this
PAUSE_WEIGHT = 5.0  # three pauses of 3 s among 40 beats at 60/min then weigh about 1
LEAST_RR_MS = 100.0
WATCHED_MS = 3000  # the most that counts between two beats: what is longer is a gap, or the sender's clock was set
SET_BACK_MS = 60_000  # a beat so much older than the newest is no repeat: it came late, or the clock was set back
AGREED_MS = 60_000  # so long only beats at another time must be watched before it is the time
MAX_LEADS = 12  # learned of one patient (a record of the topic has a largest size)
# a sender is told of after so many beats in a row whose time of R goes on by less than this share of their RR interval
STALLED_BEATS, LEAST_STEP = 64, 0.1
SAME_R_MS = 2.5  # times of R are rounded to the millisecond
LEAST_ACCEPTED = 0.2
ACCEPTED_OVER = 64  # beats, about
QUIET_SHARE = 0.45  # of the first beats' deviations this quantile is the usual one: half of them may be ectopic


@dataclass
class Patient:
    """One lead of one patient; changed by `see` alone.

    typical: float32[length], millivolts, None before there is one; deviation: relative to its amplitude; learned: the
    learning time is over; first_ms, last_ms: R of the first and the newest beat; count: beats seen; accepted: share of
    the recent beats that lay within the gate; left_ms: since when it is too small, None where it is not; pending:
    windows to learn from, every `stride`-th, since `first_ms` or `left_ms`; shifts: float64[n, 2], R and shift of the
    recent beats, ms; aside: what is learned of beats at quite another time while none but such come (not saved).
    stalled: beats in a row whose time of R went on by less than `LEAST_STEP` of their RR intervals, or not at all.
    What was not watched moves `first_ms` and `left_ms` on: the time watched is what `last_ms` is later.
    """

    first_ms: int
    last_ms: int
    count: int = 0
    typical: np.ndarray | None = None
    deviation: float = USUAL
    learned: bool = False
    accepted: float = 1.0
    left_ms: int | None = None
    stride: int = 1
    pending: list[np.ndarray] = field(default_factory=list)
    shifts: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    aside: "Patient | None" = None
    stalled: int = 0

    @property
    def known(self) -> Known:
        """How far learning has come."""
        return "learned" if self.learned else "none" if self.typical is None else "learning"


Patients = dict[str, dict[str, Patient]]  # by patient, then by lead


def prepare(beats: Sequence[Beat], contract: Contract | Bedside | ImageContract, patients: Patients) -> Prepared:
    """Make model inputs of beats, each patient's in order of time; what is known of the patients grows with them.

    A beat that does not fit the contract is refused alone; reasons as for `beats.prepare`, too-short also before R, and
    internal where ecgwatch fails on it.
    """
    if not isinstance(contract, Bedside):
        return contracts.prepare(beats, contract)
    windows, refused = contracts.windows(beats, contract)
    rows: list[np.ndarray] = []
    kept: list[int] = []
    known: list[Known] = []
    for number, beat in enumerate(beats):
        if number in refused:
            continue
        try:
            patient = _patient(patients, windows[number], beat, contract)
            row = see(patient, windows[number], beat, contract)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - one beat must not end the worker, again after each restart
            failed(error)
            refused[number] = internal(error)
            continue
        rows.append(row)
        known.append(patient.known)
        kept.append(number)
    x = np.stack(rows) if rows else np.zeros((0, contract.length), np.float32)
    return Prepared(x, np.array(kept, int), refused, tuple(known))


def _patient(patients: Patients, window: np.ndarray, beat: Beat, contract: Bedside) -> Patient:
    """Find what is known of a patient's lead, to judge a beat by."""
    leads = patients.setdefault(beat.patient, {})
    found = leads.get(beat.lead)
    if found is None:
        found = _unknown(beat)
        if _room(leads, beat, contract):
            leads[beat.lead] = found
    elif _follows(found, beat, contract):
        found.aside = None
    else:
        found = leads[beat.lead] = _at_another_time(found, window, beat, contract)
    return found


def _unknown(beat: Beat) -> Patient:
    return Patient(first_ms=beat.r_time_ms, last_ms=beat.r_time_ms - 1)


def _room(leads: dict[str, Patient], beat: Beat, contract: Bedside) -> bool:
    """Whether one more lead can be learned; the one longest silent makes room, but none that is alive.

    Or the leads of a patient with one too many would drive each other out, and none would ever be learned.
    """
    if len(leads) < MAX_LEADS:
        return True
    longest_ms = contract.learn_s * 1000
    silent, newest = (pick(leads, key=lambda lead: leads[lead].last_ms) for pick in (min, max))
    if leads[newest].typical is None and leads[newest].last_ms - beat.r_time_ms > longest_ms:
        silent = newest  # a wrong stamp made room for it; it must not keep the place until then
    elif beat.r_time_ms - leads[silent].last_ms <= longest_ms:
        _say_too_many_leads()
        return False
    del leads[silent]
    return True


@cache
def _say_too_many_leads() -> None:  # cached: once is enough
    log.warning("a patient has more than %d leads: beats of the others are judged by their rhythm alone", MAX_LEADS)


def _follows(patient: Patient, beat: Beat, contract: Bedside) -> bool:
    """Whether a beat's time goes on from that of the newest one; a little older is a repeat."""
    return -SET_BACK_MS <= beat.r_time_ms - patient.last_ms <= contract.forget_s * 1000


def _at_another_time(patient: Patient, window: np.ndarray, beat: Beat, contract: Bedside) -> Patient:
    """Learn of a beat at quite another time aside; return what is to be gone on with.

    A few such beats came late, or are another sender's, or bear a wrong stamp: they must not cost what is known. Where
    nothing is known yet it costs nothing.
    """
    aside = patient.aside
    if aside is None or not _follows(aside, beat, contract):
        aside = patient.aside = _unknown(beat)
    see(aside, window, beat, contract)
    if aside.typical is None or (patient.typical is not None and aside.last_ms - aside.first_ms < AGREED_MS):
        return patient
    if patient.typical is not None and beat.r_time_ms < patient.last_ms:
        _set_back(patient, beat.r_time_ms)
        return patient
    if patient.learned and not aside.learned:
        return patient  # a message may hold a minute of another sender's, or of a tachycardia
    return aside  # the patient was away for `forget_s`


def _set_back(patient: Patient, r_ms: int) -> None:
    """The sender's clock was ahead, or is behind now: go on from there, or the patient would be deaf until then.

    What was watched so far does not count: it may come once more.
    """
    patient.aside = None
    patient.last_ms = r_ms - 1
    patient.shifts = np.zeros((0, 2))
    if not patient.learned:
        patient.first_ms = r_ms
    elif patient.left_ms is not None:
        patient.left_ms, patient.pending, patient.stride = r_ms, [], 1


def see(patient: Patient, window: np.ndarray, beat: Beat, contract: Bedside) -> np.ndarray:
    """Return a beat's model input, float32[contract.length], and learn from it.

    window: float32[samples + 2 * spare], millivolts at contract.fs_hz, without its median. A beat no newer than the
    newest one seen changes nothing, nor does one newer by more than `forget_s`.
    """
    spare, samples = contract.spare, contract.samples
    step_ms = beat.r_time_ms - patient.last_ms
    new = 0 < step_ms <= contract.forget_s * 1000
    goes_on = step_ms > (LEAST_STEP * beat.rr_ms[-1] if len(beat.rr_ms) else 0)
    patient.stalled = 0 if goes_on else patient.stalled + 1
    if new:
        if step_ms > WATCHED_MS:
            _skip(patient, step_ms - WATCHED_MS)
        patient.last_ms = beat.r_time_ms  # at once: where what follows fails, this time has passed all the same
    if new and not patient.learned:
        _learn(patient, window, beat, contract)
    typical = window[spare : spare + samples] if patient.typical is None else patient.typical
    away = _without_trend(_moves(window, samples, spare) - typical)
    errors = np.einsum("ij,ij->i", away, away)  # says nothing where a beat of huge numbers overflows
    best = int(errors.argmin())
    amplitude = max(float(typical.max() - typical.min()), LEAST_AMPLITUDE)
    deviation = (float(errors[best]) / samples) ** 0.5 / amplitude
    if new:
        newest = [[beat.r_time_ms, (best - spare) * 1000 / contract.fs_hz]]
        patient.shifts = np.concatenate([patient.shifts[-contracts.RR_HISTORY :], newest])
    room = (USUAL / max(patient.deviation, LEAST_DEVIATION)) ** RELATIVE
    row = np.empty(contract.length, np.float32)
    row[samples : 2 * samples] = typical / np.float32(amplitude)
    row[:samples] = row[samples : 2 * samples] + away[best] * np.float32(room / amplitude)
    row[2 * samples :] = _rr(patient, beat, contract), _pauses(beat)
    if new:
        patient.count += 1
        if patient.learned:
            moved = typical + np.float32(contract.follow) * away[best]
            _follow(patient, moved, deviation, window, contract)
    return row


def _skip(patient: Patient, unwatched_ms: int) -> None:
    """Do not count time in which no beat was seen."""
    patient.first_ms += unwatched_ms
    if patient.left_ms is not None:
        patient.left_ms += unwatched_ms


def _follow(patient: Patient, moved: np.ndarray, deviation: float, window: np.ndarray, contract: Bedside) -> None:
    """Take the typical beat moved a little towards a beat within the gate; learn it anew where there are too few."""
    inside = deviation < contract.gate * max(patient.deviation, LEAST_DEVIATION)
    patient.accepted += (inside - patient.accepted) / ACCEPTED_OVER
    if inside:
        patient.typical = moved
        further = 1 if deviation > patient.deviation else -1
        patient.deviation *= 1 + contract.follow * further  # follows the median of the accepted
    if patient.accepted >= LEAST_ACCEPTED:
        patient.left_ms, patient.pending, patient.stride = None, [], 1
        return
    if patient.left_ms is None:
        patient.left_ms = patient.last_ms
    _keep(patient, window, contract)
    if patient.last_ms - patient.left_ms >= contract.learn_s * 1000 and len(patient.pending) >= 2 * LEAST_BEATS:
        patient.typical, patient.deviation = densest(np.stack(patient.pending), contract.share)
        patient.accepted, patient.left_ms, patient.pending, patient.stride = 1.0, None, [], 1


def _keep(patient: Patient, window: np.ndarray, contract: Bedside) -> None:
    if patient.count % patient.stride == 0:
        # a copy: a view would keep the windows of its whole batch
        patient.pending.append(window[contract.spare : contract.spare + contract.samples].copy())
    if len(patient.pending) > PENDING:
        patient.pending, patient.stride = patient.pending[::2], patient.stride * 2


def _moves(window: np.ndarray, samples: int, spare: int) -> np.ndarray:
    """A window at all places that it can be moved to, float32[2 spare + 1, samples]; a view, to be read alone."""
    step = window.strides[0]
    return np.ndarray((2 * spare + 1, samples), window.dtype, window, strides=(step, step))


def _without_trend(rows: np.ndarray) -> np.ndarray:
    """Rows less their parabolas of least squares, float32[n, samples]."""
    trends = _trends(rows.shape[1])
    return rows - (rows @ trends) @ trends.T


@cache
def _trends(samples: int) -> np.ndarray:
    """An orthonormal basis of the parabolas over a window, float32[samples, 3]."""
    return np.linalg.qr(np.linspace(-1, 1, samples)[:, None] ** np.arange(3))[0].astype(np.float32)


def _learn(patient: Patient, window: np.ndarray, beat: Beat, contract: Bedside) -> None:
    """Keep the window; find the typical beat among those kept, at 8, 16, 32, ... and when the learning time is over."""
    _keep(patient, window, contract)
    seen = patient.count + 1
    over = beat.r_time_ms - patient.first_ms >= contract.learn_s * 1000 and seen >= 2 * LEAST_BEATS
    if over or (seen >= LEAST_BEATS and seen & (seen - 1) == 0):
        patient.typical, patient.deviation = densest(np.stack(patient.pending), contract.share)
    if over:
        patient.learned, patient.pending, patient.stride = True, [], 1


def densest(windows: np.ndarray, share: float) -> tuple[np.ndarray, float]:
    """Return the typical beat and the usual deviation of beats, some of them ectopic (see above).

    windows: float32[n, samples]. The beat whose nearest `share` of all lie closest is in the middle of the commonest
    shape; the typical beat is the median of these, float32[samples].
    """
    squares = np.square(windows).sum(axis=1)
    distances = squares[:, None] + squares[None, :] - 2 * windows @ windows.T
    rank = max(1, int(share * len(windows)) - 1)
    radius = np.partition(distances, min(rank, len(windows) - 1), axis=1)[:, min(rank, len(windows) - 1)]
    middle = int(radius.argmin())
    typical = np.median(windows[distances[middle] <= radius[middle]], axis=0).astype(np.float32)
    deviations = np.sqrt(np.square(windows - typical).mean(axis=1)) / max(float(np.ptp(typical)), LEAST_AMPLITUDE)
    return typical, float(np.quantile(deviations, QUIET_SHARE))


def _rr(patient: Patient, beat: Beat, contract: Bedside) -> float:
    """The RR interval before a beat against the recent ones, each R moved to where its beat really lies."""
    if len(beat.rr_ms) < 2:
        return 0.0
    intervals = beat.rr_ms[-contracts.RR_HISTORY - 1 :].astype(np.float64)
    back = np.zeros(len(intervals) + 1)
    np.cumsum(intervals[::-1], out=back[1:])
    ends = beat.r_time_ms - back  # each R, newest first
    shifts = _shifts(patient, ends)
    *earlier, last = np.log(np.maximum(intervals + (shifts[:-1] - shifts[1:])[::-1], LEAST_RR_MS)).tolist()
    irregularity = LEAST_IRREGULARITY
    if len(earlier) >= 4:
        middle = _median(earlier)
        irregularity += _median([abs(one - middle) for one in earlier])
    ratio = (last - _median(earlier[-contract.recent_rr :])) / irregularity
    return RR_WEIGHT * min(max(ratio, RR_LIMITS[0]), RR_LIMITS[1])


def _pauses(beat: Beat) -> float:
    """The share of the recent time that passed in pauses, weighed."""
    paused = float(np.minimum(contracts.pauses_ms(beat.rr_ms), LONGEST_PAUSE_MS).sum())
    if not paused:
        return 0.0
    return PAUSE_WEIGHT * paused / float(np.minimum(beat.rr_ms[-contracts.RR_HISTORY :], LONGEST_PAUSE_MS).sum())


def _median(values: list[float]) -> float:
    """As statistics.median, which takes twice as long for so few."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _shifts(patient: Patient, ends: np.ndarray) -> np.ndarray:
    """The shift of the beat seen at each R, ms; 0 where none was seen: float64[n] -> float64[n]."""
    if not len(patient.shifts):
        return np.zeros(len(ends))
    r_ms, shifts = patient.shifts.T
    at = np.minimum(np.searchsorted(r_ms, ends - SAME_R_MS), len(r_ms) - 1)
    return shifts[at] * (np.abs(r_ms[at] - ends) <= SAME_R_MS)
