"""Beats -> the arrays a model takes; arrays in, arrays out, the same code in training and in service.

The paper's segment (appendix G; Kachuee et al. 2018): the signal from the R peak over 1.2 x the median RR interval, at
125 Hz, scaled to [0, 1] by its own minimum and maximum, padded with zeros to 187 samples. The original takes the
median over 10 s around the beat, 5 s of them in the future; here it is that of the 10 s up to the beat.

The bedside window: the signal from before the P wave to the end of the T wave, without its median, at 125 Hz, in
millivolts. `ecgwatch.patients` makes of it an input relative to the patient.
"""

from collections.abc import Sequence
from functools import lru_cache
from statistics import median
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from ecgwatch.errors import BundleError, MessageError
from ecgwatch.messages import Beat, Known

# scipy.signal.resample_poly's filter: a Kaiser window of beta 5 over 10 periods of the lower rate on each side
_KAISER_BETA = 5.0
_FILTER_PERIODS = 10
RATES_KEPT = 32  # sampling frequencies whose weights are kept: 0.1 MB each at 250 Hz, 5 MB at 10 kHz


class Contract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="segment"):
    """What the input of a model of heartbeats is made of; part of its bundle."""

    inputs: ClassVar[str] = "beats"

    fs_hz: float = 125.0
    length: Annotated[int, Meta(ge=2)] = 187  # samples at fs_hz, the first at R
    before_s: float = 0.08  # signal needed before R (the resampling filter's reach)
    after_s: float = 1.488  # signal needed after R, at most: the last sample
    rr_factor: float = 1.2
    rr_window_s: float = 10.0
    rr_window: Literal["past", "centred"] = "past"  # centred: the original, looks ahead, cannot be served
    rr_intervals: Annotated[int, Meta(ge=1)] = 1  # RR intervals needed, at least
    leads: tuple[str, ...] = ("MLII", "II")
    scaling: Literal["min-max"] = "min-max"


RR_HISTORY = 40  # intervals that tell how irregular a rhythm is
PAUSE_MS = 2000.0  # the clinic's limit of a sinus pause; in DS1 only 207 and 208 have any, 22 beats near one
RHYTHM = 2  # numbers of a bedside input after its two windows: RR ratio, pauses


class Bedside(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="bedside"):
    """What the input of a model is made of that sees a beat relative to its patient (ecgwatch.patients)."""

    inputs: ClassVar[str] = "beats"

    fs_hz: float = 125.0
    before_s: float = 0.304  # window before R: the P wave
    after_s: float = 0.448  # and after R: the T wave up to 80/min
    align_s: float = 0.04  # a window is moved by as much to where it lies nearest to the typical beat
    recent_rr: Annotated[int, Meta(ge=1)] = 10  # RR intervals that a beat's own is compared with
    learn_s: float = 300.0  # the typical beat is learned in this time (EC57's learning period)
    share: Annotated[float, Meta(gt=0, lt=1)] = 0.4  # of the first beats, alike, that make it
    gate: float = 3.0  # a beat within so many usual deviations may move it
    follow: float = 0.01  # by this share of the way
    forget_s: float = 43_200.0  # after so long without a beat it is learned again
    leads: tuple[str, ...] = ()  # any
    scaling: Literal["patient"] = "patient"

    @property
    def r_index(self) -> int:
        """Samples of a window before R."""
        return round(self.before_s * self.fs_hz)

    @property
    def samples(self) -> int:
        """Samples of a window."""
        return self.r_index + round(self.after_s * self.fs_hz)

    @property
    def spare(self) -> int:
        """Samples that a window is cut longer at each end, so that it can be moved."""
        return round(self.align_s * self.fs_hz)

    @property
    def length(self) -> int:
        """Numbers of one input: beat, typical beat, RR, pauses."""
        return 2 * self.samples + RHYTHM


def pauses_ms(rr_ms: np.ndarray) -> np.ndarray:
    """Return those of the recent RR intervals that are pauses, float32[n]."""
    recent = rr_ms[-RR_HISTORY:]
    return recent[recent >= PAUSE_MS]


_Array = TypeVar("_Array", bound=Any)  # numpy's, or torch's


def bedside_parts(x: _Array) -> tuple[_Array, _Array, _Array]:
    """Split bedside inputs, [n, length]: beat and typical beat, [n, samples], and RR ratio with pauses, [n, 2]."""
    samples = (x.shape[1] - RHYTHM) // 2
    return x[:, :samples], x[:, samples : 2 * samples], x[:, 2 * samples :]


class ImageContract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="image"):
    """What the input of a model of images is made of: its pixels, row by row; of colour images red, green, blue."""

    inputs: ClassVar[str] = "images"

    height: Annotated[int, Meta(ge=1)] = 28
    width: Annotated[int, Meta(ge=1)] = 28
    channels: Literal[1, 3] = 1
    scaling: Literal["0-1"] = "0-1"  # black 0, white 1

    @property
    def length(self) -> int:
        """Numbers of one image."""
        return self.height * self.width * self.channels


def of_heartbeats(contract: Contract | Bedside | ImageContract) -> Contract | Bedside:
    """Return the contract of a model of heartbeats; raises BundleError where it is one of images."""
    if isinstance(contract, ImageContract):
        raise BundleError(
            f"this bundle scores images of {contract.height} x {contract.width} pixels, not heartbeats; "
            "name one of heartbeats in [model] bundle (default is one)"
        )
    return contract


class Prepared(NamedTuple):
    """Model inputs of those beats that can be scored.

    x: float32[k, length]; kept: int[k], their positions among the beats given; refused: the others, with the reason;
    known: of each kept beat, how far its patient's typical beat was known, empty where a contract has none.
    """

    x: np.ndarray
    kept: np.ndarray
    refused: dict[int, MessageError]
    known: tuple[Known, ...] = ()


def prepare(beats: Sequence[Beat], contract: Contract | Bedside | ImageContract) -> Prepared:
    """Make model inputs of beats; a beat that does not fit the contract is refused alone.

    Reasons: lead, too-few-rr, too-short, not-finite, flat, centred. Raises BundleError for the contract of a model of
    images, and for one that needs to know the patient (ecgwatch.patients.prepare).
    """
    contract = of_heartbeats(contract)
    if isinstance(contract, Bedside):
        raise BundleError("this bundle judges a beat relative to its patient: use ecgwatch.patients.prepare")
    if contract.rr_window != "past":
        error = MessageError("centred", "this bundle was made for parity: its segments look 5 s ahead; it cannot serve")
        return Prepared(
            np.zeros((0, contract.length), np.float32), np.zeros(0, int), dict.fromkeys(range(len(beats)), error)
        )
    refused = {number: refusal for number, beat in enumerate(beats) if (refusal := _refusal(beat, contract))}
    medians = np.array(
        [
            0.0 if number in refused else median_rr_s(beat.rr_ms, contract.rr_window_s)
            for number, beat in enumerate(beats)
        ]
    )
    needed_s = (segment_length(medians, contract) - 1) / contract.fs_hz
    after_s = np.array([(len(beat.samples) - 1 - beat.r_index) / beat.fs_hz for beat in beats])
    for number in np.flatnonzero(after_s < needed_s).tolist():
        text = f"{after_s[number]:.3f} s of signal after R; this beat's segment needs {needed_s[number]:.3f} s"
        refused.setdefault(number, MessageError("too-short", text))
    kept = np.array([number for number in range(len(beats)) if number not in refused], int)
    x, flat = segments([beats[number] for number in kept.tolist()], medians[kept], contract)
    for number in kept[flat].tolist():
        refused[number] = MessageError("flat", "the segment after R is flat: no electrode, or a saturated amplifier")
    finite = np.isfinite(x).all(axis=1)
    for number in kept[~finite].tolist():
        refused[number] = _not_finite()
    fit = finite & ~flat
    return Prepared(x[fit], kept[fit], refused)


def _not_finite() -> MessageError:
    return MessageError("not-finite", "the signal around R holds NaN or infinity")


def _refusal(beat: Beat, contract: Contract) -> MessageError | None:
    if contract.leads and beat.lead not in contract.leads:
        return MessageError("lead", f"the model knows lead {' and '.join(contract.leads)}; this beat has another")
    if len(beat.rr_ms) < contract.rr_intervals:
        text = f"{len(beat.rr_ms)} RR intervals before the beat; the model needs {contract.rr_intervals}"
        return MessageError("too-few-rr", text)
    return None


def median_rr_s(rr_ms: np.ndarray, window_s: float) -> float:
    """Return the median of the RR intervals that lie within the last `window_s` seconds, seconds.

    rr_ms: oldest first, the last ends at the beat. The last one counts however long it is.
    """
    inside = max(1, int(np.cumsum(rr_ms[::-1]).searchsorted(window_s * 1000, side="right")))
    return median(rr_ms[-inside:].tolist()) / 1000  # a dozen numbers: too few for numpy's median to pay


def segment_length(median_s: float | np.ndarray, contract: Contract) -> np.ndarray:
    """Return how many samples of a segment are signal; the rest is padding."""
    wanted = np.floor(contract.rr_factor * np.asarray(median_s) * contract.fs_hz)
    return np.clip(wanted, 2, contract.length).astype(int)  # in this order: an absurd interval fits no integer


def segments(beats: Sequence[Beat], median_s: np.ndarray, contract: Contract) -> tuple[np.ndarray, np.ndarray]:
    """Cut, resample, scale and pad; without checks.

    median_s: float[n], seconds. Returns x float32[n, length] and flat bool[n] (rows that have no amplitude; zeros).
    """
    x = np.zeros((len(beats), contract.length), np.float32)
    rates = _rates(beats)
    for fs_hz in set(rates.tolist()):
        rows = np.flatnonzero(rates == fs_hz).tolist()
        first, weights = _resampling(float(fs_hz), contract.fs_hz, contract.length)
        x[rows] = np.stack([_window(beats[row], first, len(weights)) for row in rows]) @ weights
    inside = np.arange(contract.length) < segment_length(median_s, contract)[:, None]
    low = np.where(inside, x, np.inf).min(axis=1, initial=np.inf, keepdims=True)
    high = np.where(inside, x, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    span = high - low
    flat = span[:, 0] < 1e-3  # a microvolt: below it, scaling would only show the recorder's noise
    scaled = (x - low) / np.where(flat[:, None], 1, span)
    return np.where(inside & ~flat[:, None], scaled, 0).astype(np.float32), flat


def _rates(beats: Sequence[Beat]) -> np.ndarray:
    """The sampling frequency of each beat to a tenth, hertz: a device may send the one it measures, ever another.

    The beat's last sample, 1.5 s after R, so moves by less than a tenth of the way to the next.
    """
    return np.round([beat.fs_hz for beat in beats], 1)


def _window(beat: Beat, first: int, count: int) -> np.ndarray:
    """Take `count` samples from `first` relative to R; beyond the ends stands the last sample there."""
    start = beat.r_index + first
    if start >= 0 and start + count <= len(beat.samples):
        return beat.samples[start : start + count]
    return beat.samples[np.clip(np.arange(start, start + count), 0, len(beat.samples) - 1)]


def windows(beats: Sequence[Beat], contract: Bedside) -> tuple[np.ndarray, dict[int, MessageError]]:
    """Cut bedside windows with their spare ends, and without their median (the baseline wanders).

    Returns float32[n, samples + 2 * spare], millivolts, and the beats that are refused: lead, too-short, not-finite,
    flat.
    """
    spare = contract.spare
    before = contract.r_index + spare
    cut = np.zeros((len(beats), contract.samples + 2 * spare), np.float32)
    refused: dict[int, MessageError] = {}
    for number, beat in enumerate(beats):
        if (refusal := _unfit(beat, contract)) is not None:
            refused[number] = refusal
    rates = _rates(beats)
    for fs_hz in set(rates.tolist()):
        rows = [row for row in np.flatnonzero(rates == fs_hz).tolist() if row not in refused]
        first, weights = _resampling(float(fs_hz), contract.fs_hz, cut.shape[1], before)
        if rows:
            cut[rows] = np.stack([_window(beats[row], first, len(weights)) for row in rows]) @ weights
    for number in np.flatnonzero(~np.isfinite(cut).all(axis=1)).tolist():  # nothing may be learned of it
        refused[number] = _not_finite()
        cut[number] = 0
    inner = cut[:, spare : spare + contract.samples]
    for number in np.flatnonzero(np.ptp(inner, axis=1) < 1e-3).tolist():
        refused.setdefault(number, MessageError("flat", "the window is flat: no electrode, or a saturated amplifier"))
    return cut - np.median(inner, axis=1, keepdims=True), refused


def _unfit(beat: Beat, contract: Bedside) -> MessageError | None:
    if contract.leads and beat.lead not in contract.leads:
        return MessageError("lead", f"the model knows lead {' and '.join(contract.leads)}; this beat has another")
    before_s, after_s = beat.r_index / beat.fs_hz, (len(beat.samples) - 1 - beat.r_index) / beat.fs_hz
    for there_s, needed_s, where in (
        (before_s, contract.before_s + contract.align_s, "before"),
        (after_s, contract.after_s + contract.align_s, "after"),
    ):
        if there_s < needed_s - 1 / contract.fs_hz:
            return MessageError("too-short", f"{there_s:.3f} s of signal {where} R; a window needs {needed_s:.3f} s")
    return None


@lru_cache(RATES_KEPT)
def _resampling(fs_in_hz: float, fs_out_hz: float, length: int, before: int = 0) -> tuple[int, np.ndarray]:
    """Return where the input window starts relative to R, and the weights float32[count, length] that resample it.

    before: samples of the output before R.

    A windowed sinc at exactly the output times, so that R keeps its place at any input rate and a whole batch is one
    matrix product.
    """
    lower_hz = min(fs_in_hz, fs_out_hz)
    reach_s = _FILTER_PERIODS / lower_hz
    first = -int(np.ceil((before / fs_out_hz + reach_s) * fs_in_hz))
    count = int(np.ceil(((length - 1 - before) / fs_out_hz + reach_s) * fs_in_hz)) + 1 - first
    t_in = (first + np.arange(count))[:, None] / fs_in_hz
    lag_s = t_in - (np.arange(length) - before)[None, :] / fs_out_hz
    weights = np.zeros_like(lag_s)
    inside = np.abs(lag_s) <= reach_s
    lag_s = lag_s[inside]
    weights[inside] = np.sinc(lower_hz * lag_s) * np.i0(_KAISER_BETA * np.sqrt(1 - (lag_s / reach_s) ** 2))
    return first, (weights / weights.sum(axis=0)).astype(np.float32)
