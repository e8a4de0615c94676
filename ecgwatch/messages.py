"""The wire contract: what travels on the beat, score, alert and dead-letter topics, and its codecs.

A beat message comes as JSON that a person can type, or as MessagePack with the samples as bytes; the header
`content-type` tells them apart (no header means JSON). Unknown fields are ignored, so that fields can be added
without a new version; `version` rises only when an old reader would misunderstand. Both forms decode to the same
`Beat`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

from ecgwatch.errors import MessageError, Reason

VERSION = 1
Known = Literal["none", "learning", "learned"]  # of a patient's typical beat
CONTENT_TYPE = "content-type"
JSON = "application/json"
MSGPACK = "application/msgpack"

MAX_BEATS_PER_MESSAGE = 1000
MIN_SAMPLES, MAX_SAMPLES = 2, 100_000
# Ten times what electrodes can show: 300 mV of offset and pacing pulses of 700 mV. What lies beyond is another unit, or
# float32 in another byte order; the model's squares of such numbers may fit no float32.
MAX_MV = 10_000.0
FS_HZ_RANGE = (50.0, 10_000.0)
LEAST_RR_MS = 60.0  # where no interval is as long, they are in seconds

Version = Annotated[
    int,
    # in the schema alone, as in `rr_ms` below: the codec tells a later version from a wrong one
    Meta(ge=1, description="Version of the wire contract: 1.", extra_json_schema={"const": VERSION}),
]
Patient = Annotated[
    str,
    Meta(min_length=1, max_length=200, description="The patient's pseudonym, equal to the Kafka key."),
]
Lead = Annotated[
    str,
    # (?!\s): Python's $ also matches before a newline at the end
    Meta(min_length=1, max_length=40, pattern=r"^[^/\s]+(?!\s)$", description="As WFDB names it: MLII, V1, ..."),
]
TimeMs = Annotated[
    int,
    Meta(ge=0, le=253_402_300_799_999, description="Time of the R peak, milliseconds since 1970-01-01 UTC."),
]

Baseline = Annotated[
    Known | None,
    Meta(
        description="How far the patient's typical beat was known: none (the first beats; only the RR interval can "
        "raise the score), learning (provisional, in the first minutes), learned. null: the model does not use it."
    ),
]


@dataclass(frozen=True, slots=True)
class Beat:
    """One beat of one patient, as every part of the program sees it.

    samples: float32[n], millivolts, at `fs_hz`; R stands at index `r_index`, signal before R included.
    rr_ms: float32[m], the RR intervals before this beat, oldest first; the last one ends at this beat's R peak.
    """

    patient: str
    lead: str
    r_time_ms: int
    fs_hz: float
    r_index: int
    samples: np.ndarray
    rr_ms: np.ndarray

    @property
    def id(self) -> str:
        """Patient, lead and R-peak time: the same however often and wherever the beat is sent."""
        return f"{self.patient}/{self.lead}/{self.r_time_ms}"


class BeatItem(msgspec.Struct, frozen=True):
    """One beat in a JSON message."""

    r_time_ms: TimeMs
    r_index: Annotated[
        int, Meta(ge=0, description="Index of the R peak in `samples`, from 0; below the number of samples.")
    ]
    # limits in the schema alone: the decoder would refuse the message, `refusal` refuses the beat
    samples: Annotated[
        list[Annotated[float, Meta(extra_json_schema={"minimum": -MAX_MV, "maximum": MAX_MV})]],
        Meta(
            description="The signal around R, millivolts.",
            extra_json_schema={"minItems": MIN_SAMPLES, "maxItems": MAX_SAMPLES},
        ),
    ]
    rr_ms: Annotated[
        list[Annotated[float, Meta(extra_json_schema={"exclusiveMinimum": 0})]],
        Meta(
            max_length=1000,
            description="RR intervals before this beat, milliseconds, oldest first; the last ends at its R peak.",
        ),
    ] = []


class PackedBeatItem(msgspec.Struct, frozen=True):
    """One beat in a MessagePack message."""

    r_time_ms: TimeMs
    r_index: Annotated[int, Meta(ge=0)]
    samples: bytes  # float32, little-endian, millivolts
    rr_ms: bytes = b""  # float32, little-endian


class BeatMessage(msgspec.Struct, frozen=True):
    """Beats of one patient and one lead: the value of a record on the beat topic (JSON)."""

    version: Version
    patient: Patient
    lead: Lead
    fs_hz: Annotated[float, Meta(ge=FS_HZ_RANGE[0], le=FS_HZ_RANGE[1], description="Sampling frequency, hertz.")]
    beats: Annotated[
        list[BeatItem], Meta(min_length=1, max_length=MAX_BEATS_PER_MESSAGE, description="The oldest first.")
    ]


class PackedBeatMessage(msgspec.Struct, frozen=True):
    """Beats of one patient and one lead: the value of a record on the beat topic (MessagePack)."""

    version: Version
    patient: Patient
    lead: Lead
    fs_hz: Annotated[float, Meta(ge=FS_HZ_RANGE[0], le=FS_HZ_RANGE[1])]
    beats: Annotated[list[PackedBeatItem], Meta(min_length=1, max_length=MAX_BEATS_PER_MESSAGE)]


class Score(msgspec.Struct, frozen=True):
    """What the model says of one beat: the value of a record on the score topic (JSON)."""

    version: Version
    id: Annotated[str, Meta(description="patient/lead/r_time_ms: equal for repeats of the same beat.")]
    patient: Patient
    lead: Lead
    r_time_ms: TimeMs
    nse: Annotated[float, Meta(description="Normalised squared error of the reconstruction (eq. 3).")]
    distance: Annotated[float, Meta(description="Distance to the nearest normal beats in the t-SNE map (eq. 4).")]
    score: Annotated[float, Meta(description="alpha * scaled nse + (1 - alpha) * scaled distance (eq. 2).")]
    threshold: Annotated[float, Meta(description="A score above it is an alert.")]
    alert: bool
    model: Annotated[str, Meta(description="SHA-256 of the model bundle's manifest, hex.")]
    baseline: Baseline = None


class Alert(msgspec.Struct, frozen=True):
    """A beat whose score is above the threshold: the value of a record on the alert topic (JSON)."""

    version: Version
    id: Annotated[str, Meta(description="patient/lead/r_time_ms: drop what you have seen.")]
    patient: Patient
    lead: Lead
    r_time_ms: TimeMs
    score: float
    threshold: float
    nse: float
    distance: float
    reason: Annotated[str, Meta(description="Which term rose above what normal beats show, in words.")]
    model: str
    baseline: Baseline = None


class LeadBaseline(msgspec.Struct, frozen=True):
    """What is known of one lead of a patient (ecgwatch.patients.Patient)."""

    lead: Lead
    known: Known
    fs_hz: Annotated[float, Meta(description="Of the typical beat, hertz.")]
    first_ms: int
    last_ms: Annotated[int, Meta(description="R of the newest beat that it was learned from.")]
    beats: int
    typical: Annotated[bytes | None, Meta(description="float32, little-endian, millivolts; base64.")]
    deviation: Annotated[float, Meta(description="Usual deviation of a beat from it, relative to its amplitude.")]
    accepted: float
    left_ms: int | None
    stride: int
    pending: list[bytes]  # float32, little-endian, millivolts
    shifts: list[tuple[int, float]]
    r_index: Annotated[int | None, Meta(description="Index of R in the typical beat; null: not said.")] = None


class BaselineMessage(msgspec.Struct, frozen=True):
    """What is known of one patient: the value of a record on the baseline topic (JSON); none: forget the patient."""

    version: Version
    patient: Patient
    leads: list[LeadBaseline]


# What stands in the headers of a dead-letter record; the value is the original payload (or its beginning).
DEAD_LETTER_HEADERS = {
    "ecgwatch-reason": "a short slug: not-json, too-short, ...",
    "ecgwatch-error": "the reason in words, without signal data or identities",
    "ecgwatch-topic": "where the message was read",
    "ecgwatch-partition": "its partition",
    "ecgwatch-offset": "its offset",
    CONTENT_TYPE: "that of the message, where it had one",
    "ecgwatch-length": "length of the original value, bytes (only where the value is cut)",
    "ecgwatch-sha256": "SHA-256 of the original value (only where the value is cut)",
}

_decode_json = msgspec.json.Decoder(BeatMessage).decode
_decode_msgpack = msgspec.msgpack.Decoder(PackedBeatMessage).decode
_encode_json = msgspec.json.Encoder().encode
_encode_msgpack = msgspec.msgpack.Encoder().encode


class Versioned(msgspec.Struct):
    version: int


_version_json = msgspec.json.Decoder(Versioned).decode
_version_msgpack = msgspec.msgpack.Decoder(Versioned).decode


def decode_beats(value: bytes | None, key: bytes | None, content_type: str | None = None) -> list[Beat | MessageError]:
    """Decode one record of the beat topic; in the place of a beat that no model can take stands the reason.

    key: the record's Kafka key, which must be the patient in UTF-8. content_type: its header; None means JSON.
    Raises MessageError where none of its beats can be told: no-value, no-key, content-type, version, not-json,
    not-msgpack, schema, key-mismatch. The reasons of single beats: those of `refusal`.
    """
    if not value:
        raise MessageError("no-value", "the message has no value")
    if not key:
        raise MessageError("no-key", "the message has no key; it must be the patient, so that beats keep their order")
    # without parameters: a charset tells nothing more
    media_type = JSON if content_type is None else content_type.partition(";")[0].strip().lower()
    if media_type == JSON:
        message: BeatMessage | PackedBeatMessage = _decode(value, _decode_json, _version_json, _NOT_JSON)
    elif media_type == MSGPACK:
        message = _decode(value, _decode_msgpack, _version_msgpack, _NOT_MSGPACK)
    else:
        raise MessageError("content-type", f"content-type must be {JSON} or {MSGPACK}")
    if message.version != VERSION:
        raise _unknown_version(message.version)
    if message.patient.encode() != key:
        raise MessageError("key-mismatch", "the Kafka key differs from the patient in the message")
    items: Sequence[BeatItem | PackedBeatItem] = message.beats
    return [_beat(message, item) for item in items]


_NOT_JSON: tuple[Reason, str] = ("not-json", "the value is not valid JSON")
_NOT_MSGPACK: tuple[Reason, str] = ("not-msgpack", "the value is not valid MessagePack")
# what msgspec raises where it cannot read a value; RecursionError where it is nested too deep
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)


def _decode(value: bytes, decode: Any, decode_version: Any, unreadable: tuple[Reason, str]) -> Any:
    try:
        return decode(value)
    except msgspec.ValidationError as error:
        _refuse_future_version(value, decode_version)
        raise MessageError("schema", _without_content(error)) from None
    except UNREADABLE:
        raise MessageError(*unreadable) from None


def _refuse_future_version(value: bytes, decode_version: Any) -> None:
    """A message of a later version may look wrong in other ways too; its version is what to tell."""
    try:
        version = decode_version(value).version
    except UNREADABLE:
        return
    if version > VERSION:
        raise _unknown_version(version)


def _unknown_version(version: int) -> MessageError:
    return MessageError("version", f"version {version} is not known here; this worker reads version {VERSION}")


def _without_content(error: msgspec.ValidationError) -> str:
    """msgspec's message names types and paths; the one that quotes a value (an invalid enum) cannot occur here."""
    return str(error)[:300]


def _beat(message: BeatMessage | PackedBeatMessage, item: BeatItem | PackedBeatItem) -> Beat | MessageError:
    if isinstance(item, PackedBeatItem):
        if len(item.samples) % 4 or len(item.rr_ms) % 4:
            return MessageError("schema", "samples and rr_ms must be float32, 4 bytes each")
        samples = np.frombuffer(item.samples, "<f4")
        rr_ms = np.frombuffer(item.rr_ms, "<f4")
    else:
        with np.errstate(over="ignore"):  # too large for float32 becomes inf, which is refused below
            samples = np.array(item.samples, np.float32)
            rr_ms = np.array(item.rr_ms, np.float32)
    beat = Beat(message.patient, message.lead, item.r_time_ms, message.fs_hz, item.r_index, samples, rr_ms)
    return refusal(beat) or beat


def refusal(beat: Beat) -> MessageError | None:
    """Say why no model can take a beat: samples, not-finite, out-of-range, r-index, rr; None where one may."""
    samples, rr_ms = beat.samples, beat.rr_ms
    if not MIN_SAMPLES <= len(samples) <= MAX_SAMPLES:
        return MessageError("samples", f"{len(samples)} samples; {MIN_SAMPLES} to {MAX_SAMPLES} can be read")
    farthest_mv = np.abs(samples).max()
    if not np.isfinite(farthest_mv):
        return MessageError("not-finite", "samples hold NaN or infinity")
    if farthest_mv > MAX_MV:
        return MessageError("out-of-range", f"samples beyond {MAX_MV:g} mV: another unit, or bytes in another order")
    if beat.r_index >= len(samples):
        return MessageError("r-index", f"r_index {beat.r_index} is beyond its {len(samples)} samples")
    if len(rr_ms) and not (np.isfinite(rr_ms).all() and rr_ms.min() > 0):
        return MessageError("rr", "RR intervals must be positive and finite")
    if len(rr_ms) and rr_ms.max() < LEAST_RR_MS:
        return MessageError("rr", f"no RR interval is as long as {LEAST_RR_MS:g} ms: milliseconds are wanted")
    return None


def encode_beats(beats: Sequence[Beat], content_type: str = JSON) -> bytes:
    """Encode beats of one patient, one lead and one sampling frequency as one message.

    Raises ValueError when they differ in these.
    """
    first = beats[0]
    if any((b.patient, b.lead, b.fs_hz) != (first.patient, first.lead, first.fs_hz) for b in beats):
        raise ValueError("beats of one message must share patient, lead and fs_hz")
    if content_type == MSGPACK:
        packed = [
            PackedBeatItem(b.r_time_ms, b.r_index, b.samples.astype("<f4").tobytes(), b.rr_ms.astype("<f4").tobytes())
            for b in beats
        ]
        return _encode_msgpack(PackedBeatMessage(VERSION, first.patient, first.lead, first.fs_hz, packed))
    # rounded to the microvolt and to 10 us: half the bytes, far below what a recorder resolves
    items = [BeatItem(b.r_time_ms, b.r_index, _rounded(b.samples, 3), _rounded(b.rr_ms, 2)) for b in beats]
    return _encode_json(BeatMessage(VERSION, first.patient, first.lead, first.fs_hz, items))


def _rounded(values: np.ndarray, decimals: int) -> list[float]:
    return values.astype(float).round(decimals).tolist()


def encode(message: Score | Alert | BaselineMessage) -> bytes:
    """Encode a score, an alert or a baseline as JSON."""
    return _encode_json(message)


def decode_score(value: bytes) -> Score:
    """Decode a record of the score topic; raises msgspec.DecodeError."""
    return msgspec.json.decode(value, type=Score)


def decode_alert(value: bytes) -> Alert:
    """Decode a record of the alert topic; raises msgspec.DecodeError."""
    return msgspec.json.decode(value, type=Alert)


def decode_baseline(value: bytes) -> BaselineMessage:
    """Decode a record of the baseline topic; raises msgspec.MsgspecError."""
    return msgspec.json.decode(value, type=BaselineMessage)


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema (2020-12) of each topic, made from the types above.

    The one of dead letters describes their headers: the value is the original payload, whatever it was.
    """
    schemas = {
        "beats": msgspec.json.schema(BeatMessage),
        "scores": msgspec.json.schema(Score),
        "alerts": msgspec.json.schema(Alert),
        "baselines": msgspec.json.schema(BaselineMessage),
        "dead-letters": _dead_letter_headers(),
    }
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {name: dialect | schema for name, schema in schemas.items()}


def _dead_letter_headers() -> dict[str, Any]:
    optional = {CONTENT_TYPE, "ecgwatch-length", "ecgwatch-sha256"}
    return {
        "title": "Headers of a record on the dead-letter topic (UTF-8)",
        "type": "object",
        "properties": {name: {"type": "string", "description": text} for name, text in DEAD_LETTER_HEADERS.items()},
        "required": sorted(DEAD_LETTER_HEADERS.keys() - optional),
    }
