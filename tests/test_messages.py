"""The wire contract: what decodes, what is refused and how, and that nothing else comes out."""

import json
import math
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from ecgwatch import messages
from ecgwatch.errors import MessageError, Reason
from ecgwatch.messages import JSON, MSGPACK, Beat, decode_beats, encode_beats

SCHEMAS = Path(__file__).parent.parent / "docs" / "schemas"
FORMS = [JSON, MSGPACK]
# what must never show in an error: it goes to logs and headers
PATIENT, LEAD, SAMPLE = "Zaphod-Beeblebrox", "QQ7", 3.457
# seven digits each (two hours, in ms): no index, version or size that an error may name holds six of them by chance
RR_MS = (7319846.5, 6295713.5)
SECRETS = (PATIENT, LEAD, str(SAMPLE), *(str(rr)[:6] for rr in RR_MS), *(f"{rr:e}"[:7] for rr in RR_MS))
PAYLOADS = settings(max_examples=2500, deadline=None, suppress_health_check=list(HealthCheck))


def beat(**changes: Any) -> Beat:
    fields: dict[str, Any] = {
        "patient": PATIENT,
        "lead": LEAD,
        "r_time_ms": 1_700_000_000_123,
        "fs_hz": 360.0,
        "r_index": 2,
        "samples": np.array([0.1, -0.2, SAMPLE, 0.25], np.float32),
        "rr_ms": np.array(RR_MS, np.float32),
    }
    return Beat(**(fields | changes))


def plain(form: str = JSON, **changes: Any) -> dict[str, Any]:
    """A valid message as a dict, with fields of the message replaced (None removes)."""
    decode = msgspec.json.decode if form == JSON else msgspec.msgpack.decode
    return {key: value for key, value in (decode(encode_beats([beat()], form)) | changes).items() if value is not None}


def packed(message: Any, form: str) -> bytes:
    return msgspec.json.encode(message) if form == JSON else msgspec.msgpack.encode(message)


def with_item(form: str, **changes: Any) -> bytes:
    message = plain(form)
    message["beats"][0] |= changes
    return packed(message, form)


def refusal(value: bytes | None, form: str = JSON, key: bytes | None = PATIENT.encode()) -> MessageError:
    """The error of a message, or of its first beat."""
    try:
        (one, *_) = decode_beats(value, key, form)
    except MessageError as error:
        return error
    assert isinstance(one, MessageError)
    return one


def equal(one: Beat, other: Beat) -> bool:
    return (one.id, one.fs_hz, one.r_index) == (other.id, other.fs_hz, other.r_index) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("samples", "rr_ms")
    )


@pytest.mark.parametrize("form", FORMS)
def test_what_is_encoded_decodes_to_the_same_beats(form: str):
    beats = [beat(), beat(r_time_ms=1_700_000_000_923, rr_ms=np.array([], np.float32))]
    decoded = decode_beats(encode_beats(beats, form), PATIENT.encode(), form)
    assert [equal(*pair) for pair in zip(decoded, beats, strict=True)] == [True, True]


@pytest.mark.parametrize("form", FORMS)
def test_decoded_samples_are_float32(form: str):
    (decoded,) = decode_beats(encode_beats([beat()], form), PATIENT.encode(), form)
    assert (decoded.samples.dtype, decoded.rr_ms.dtype) == (np.float32, np.float32)


def test_a_message_typed_by_hand_is_read():
    value = b"""
        {"version": 1, "patient": "bed-2", "lead": "MLII", "fs_hz": 250,
         "beats": [{"r_time_ms": 1700000000000, "r_index": 1, "samples": [0, 1.1, -0.3], "rr_ms": [812]}]}
    """
    (decoded,) = decode_beats(value, b"bed-2")
    assert decoded.id == "bed-2/MLII/1700000000000"


def test_json_keeps_samples_to_the_microvolt():
    (decoded,) = decode_beats(
        encode_beats([beat(samples=np.array([0.1234567, 2.0], np.float32), r_index=0)]), PATIENT.encode()
    )
    assert abs(decoded.samples[0] - 0.1234567) <= 0.0005001


@pytest.mark.parametrize("form", FORMS)
def test_unknown_fields_are_tolerated_everywhere(form: str):
    message = plain(form, ward="3 east")
    message["beats"][0]["quality"] = {"noise": 0.1}
    assert len(decode_beats(packed(message, form), PATIENT.encode(), form)) == 1


def test_beats_of_two_patients_do_not_go_into_one_message():
    with pytest.raises(ValueError, match="must share patient"):
        encode_beats([beat(), beat(patient="another")])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "version"),
        ({"version": 2, "patient": None, "beats": None}, "version"),
        ({"version": 2**63}, "version"),
        ({"version": 0}, "schema"),
        ({"version": "1"}, "schema"),
        ({"version": None}, "schema"),
        ({"patient": None}, "schema"),
        ({"patient": ""}, "schema"),
        ({"patient": "x" * 201}, "schema"),
        ({"patient": "somebody else"}, "key-mismatch"),
        ({"lead": "ML II"}, "schema"),
        ({"lead": "MLII\n"}, "schema"),
        ({"lead": "ML/II"}, "schema"),
        ({"fs_hz": 49.9}, "schema"),
        ({"fs_hz": 10_001}, "schema"),
        ({"fs_hz": "360"}, "schema"),
        ({"beats": []}, "schema"),
        ({"beats": {}}, "schema"),
    ],
)
def test_a_wrong_field_of_the_message_is_refused(form: str, changes: dict[str, Any], reason: str):
    assert refusal(packed(plain(form, **changes), form), form).reason == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"r_time_ms": -1}, "schema"),
        ({"r_time_ms": 253_402_300_800_000}, "schema"),
        ({"r_time_ms": 1.5}, "schema"),
        ({"r_index": 4}, "r-index"),
        ({"r_index": -1}, "schema"),
        ({"samples": [1.0]}, "samples"),
        ({"samples": "AAAA"}, "schema"),
        ({"samples": [1.0, None]}, "schema"),
        ({"samples": [1.0, "NaN"]}, "schema"),
        ({"samples": [1.0, True]}, "schema"),
        ({"samples": [1.0, 1e39, 0.0]}, "not-finite"),
        ({"samples": [1.0, -10_001.0, 0.0]}, "out-of-range"),
        ({"samples": [1.0, 10_001.0, 0.0]}, "out-of-range"),
        ({"samples": [0.0] * (messages.MAX_SAMPLES + 1)}, "samples"),
        ({"rr_ms": [0.0]}, "rr"),
        ({"rr_ms": [-800.0]}, "rr"),
        ({"rr_ms": [1e39]}, "rr"),
        ({"rr_ms": [0.8, 0.81, 2.4]}, "rr"),
        ({"rr_ms": 800}, "schema"),
    ],
)
def test_a_wrong_field_of_a_json_beat_is_refused(changes: dict[str, Any], reason: str):
    assert refusal(with_item(JSON, **changes)).reason == reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"samples": b"12345"}, "schema"),
        ({"samples": b""}, "samples"),
        ({"samples": b"1234"}, "samples"),
        ({"samples": b"1234" * (messages.MAX_SAMPLES + 1)}, "samples"),
        ({"samples": [1.0, 2.0, 3.0]}, "schema"),
        ({"samples": np.array([1, math.nan, 0], "<f4").tobytes()}, "not-finite"),
        ({"samples": np.array([1, math.inf, 0], "<f4").tobytes()}, "not-finite"),
        ({"samples": np.array([1, -1e19, 0], "<f4").tobytes()}, "out-of-range"),
        ({"samples": np.array([0.1, 0.2, 0.3], ">f4").tobytes()}, "out-of-range"),
        ({"rr_ms": np.array([math.nan], "<f4").tobytes()}, "rr"),
        ({"rr_ms": b"123"}, "schema"),
        ({"r_index": 4}, "r-index"),
    ],
)
def test_a_wrong_field_of_a_packed_beat_is_refused(changes: dict[str, Any], reason: str):
    assert refusal(with_item(MSGPACK, **changes), MSGPACK).reason == reason


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "changes",
    [
        {"samples": np.array([0.1], np.float32)},
        {"samples": np.array([0.1, 20_000.0, 0.2], np.float32)},
        {"r_index": 4},
        {"rr_ms": np.array([800.0, 0.0], np.float32)},
    ],
)
def test_the_beats_beside_a_wrong_one_are_read(form: str, changes: dict[str, Any]):
    beats = [beat(), beat(**changes), beat(r_time_ms=5)]
    first, wrong, last = decode_beats(encode_beats(beats, form), PATIENT.encode(), form)
    assert equal(first, beats[0]) and equal(last, beats[2])
    assert isinstance(wrong, MessageError)


def test_what_electrodes_show_at_their_worst_is_in_range():
    offset_and_pacing = beat(samples=np.array([300.0, 1000.0, -1000.0], np.float32))
    assert messages.refusal(offset_and_pacing) is None


@pytest.mark.parametrize(
    ("value", "form", "reason"),
    [
        (None, JSON, "no-value"),
        (b"", JSON, "no-value"),
        (b"beat", JSON, "not-json"),
        (encode_beats([beat()])[:-1], JSON, "not-json"),
        (encode_beats([beat()], MSGPACK), JSON, "not-json"),
        (encode_beats([beat()]).replace(b"3.457", b"NaN"), JSON, "not-json"),
        (b'{"version":1,"patient":"\xff"}', JSON, "not-json"),
        (b'{"version":1,"patient":"\\ud800"}', JSON, "not-json"),
        (b'{"version":1,"x":' + b"[" * 500_000, JSON, "not-json"),
        (b"\x82\xa7version\x01\xa1x" + b"\x91" * 500_000, MSGPACK, "not-msgpack"),
        (b'{"version":1,"patient":5,"x":' + b"[" * 5000, JSON, "schema"),
        (b"\x83\xa7version\x01\xa7patient\x05\xa1x" + b"\x91" * 5000, MSGPACK, "schema"),
        (b"null", JSON, "schema"),
        (b"[]", JSON, "schema"),
        (b'{"version":' + b"9" * 5000 + b"}", JSON, "schema"),
        (encode_beats([beat()], MSGPACK)[:-1], MSGPACK, "not-msgpack"),
        (encode_beats([beat()]), "text/plain", "content-type"),
        (encode_beats([beat()]), "", "content-type"),
    ],
)
def test_what_cannot_be_decoded_is_refused(value: bytes | None, form: str, reason: str):
    assert refusal(value, form).reason == reason


@pytest.mark.parametrize("key", [None, b""])
def test_a_message_without_key_is_refused(key: bytes | None):
    assert refusal(encode_beats([beat()]), key=key).reason == "no-key"


def test_a_key_that_is_no_utf_8_is_refused():
    assert refusal(encode_beats([beat()]), key=b"\xff\xfe").reason == "key-mismatch"


# Generated payloads. ---------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([PATIENT, f"{PATIENT}/{LEAD}", SAMPLE, "\ud800", 10**400, -1, 0, 2**32, 1e308]),
)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)
numbers = st.sampled_from([1e308, -1e39, -1.0, 0.0, 1e-300]) | st.floats()  # some too large or small for float32
PLACES = ["version", "patient", "lead", "fs_hz", "beats", "r_time_ms", "r_index", "samples", "rr_ms", "new"]


@st.composite
def mutated(draw: DrawFn, form: str) -> Any:
    """A valid message in which one to three fields, or items of their lists, were replaced or removed."""
    message = plain(form)
    for place in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        item = message["beats"][0] if isinstance(message.get("beats"), list) and message["beats"] else message
        owner = message if place in message or not isinstance(item, dict) else item
        field = owner.get(place)
        if isinstance(field, list) and field and draw(st.booleans()):  # the other items are still a patient's
            field[draw(st.integers(0, len(field) - 1))] = draw(numbers)
        elif draw(st.booleans()):
            owner[place] = draw(trees | (st.binary(max_size=20) if form == MSGPACK else scalars))
        else:
            owner.pop(place, None)
    return message


@st.composite
def json_payloads(draw: DrawFn) -> bytes:
    """Mutated messages as any JSON library would write them, NaN, surrogates and huge numbers included."""
    return json.dumps(draw(mutated(JSON)), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


@st.composite
def msgpack_payloads(draw: DrawFn) -> bytes:
    message = draw(mutated(MSGPACK))
    try:
        return msgspec.msgpack.encode(message)
    except (OverflowError, UnicodeEncodeError):  # MessagePack cannot say 10**400 or half a surrogate pair
        return json.dumps(str(message)).encode()


@st.composite
def damaged(draw: DrawFn, form: str) -> bytes:
    """A valid message cut short, or with some bytes replaced, inserted or removed."""
    value = bytearray(encode_beats([beat()] * draw(st.integers(1, 3)), form))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(value) - 1)))
        value[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(value[: draw(st.integers(0, len(value)))] if draw(st.booleans()) else value)


def check(value: bytes, key: bytes | None, form: str) -> None:
    """Only beats that keep the contract and MessageErrors come out, and the errors tell nothing of a patient."""
    try:
        found = decode_beats(value, key, form)
    except MessageError as error:
        found = [error]
    assert 1 <= len(found) <= messages.MAX_BEATS_PER_MESSAGE
    for one in found:
        if isinstance(one, MessageError):
            assert one.reason in get_args(Reason)
            text = str(one)
            assert "\n" not in text
            assert [secret for secret in SECRETS if secret in text] == []
            continue
        assert one.patient.encode() == key
        assert 2 <= len(one.samples) <= messages.MAX_SAMPLES
        assert 0 <= one.r_index < len(one.samples)
        assert (np.abs(one.samples) <= messages.MAX_MV).all()  # NaN is not
        assert (one.rr_ms > 0).all()
        assert np.isfinite(one.rr_ms).all()
        assert equal(decode_beats(encode_beats([one], MSGPACK), key, MSGPACK)[0], one)


keys = st.sampled_from([PATIENT.encode(), PATIENT.encode(), None, b"", b"\xff", b"someone"])


@PAYLOADS
@given(value=json_payloads(), key=keys)
def test_mutated_json_gives_beats_or_a_message_error(value: bytes, key: bytes | None):
    check(value, key, JSON)


@PAYLOADS
@given(value=msgpack_payloads(), key=keys)
def test_mutated_msgpack_gives_beats_or_a_message_error(value: bytes, key: bytes | None):
    check(value, key, MSGPACK)


@PAYLOADS
@given(data=st.data(), form=st.sampled_from(FORMS))
def test_damaged_bytes_give_beats_or_a_message_error(data: st.DataObject, form: str):
    check(data.draw(damaged(form)), PATIENT.encode(), form)


@PAYLOADS
@given(value=st.binary(max_size=300), key=keys, form=st.sampled_from([*FORMS, "", "application/xml"]))
def test_random_bytes_give_beats_or_a_message_error(value: bytes, key: bytes | None, form: str):
    check(value, key, form)


@settings(max_examples=500, deadline=None)
@given(
    samples=st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=50),
    rr_ms=st.lists(st.floats(64, 5000, width=32), max_size=10),
    patient=st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
    time_ms=st.integers(0, 253_402_300_799_999),
)
def test_the_binary_form_loses_nothing(samples: list[float], rr_ms: list[float], patient: str, time_ms: int):
    one = beat(
        patient=patient, r_time_ms=time_ms, r_index=1, samples=np.array(samples, "f4"), rr_ms=np.array(rr_ms, "f4")
    )
    assert equal(decode_beats(encode_beats([one], MSGPACK), patient.encode(), MSGPACK)[0], one)


# The schemas. ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", messages.json_schemas())
def test_the_committed_schema_is_the_one_of_the_code(topic: str):
    committed = json.loads((SCHEMAS / f"{topic}.schema.json").read_text())
    assert committed == messages.json_schemas()[topic], "run: make schemas"


def test_no_other_schema_is_committed():
    assert {file.name for file in SCHEMAS.iterdir()} == {f"{topic}.schema.json" for topic in messages.json_schemas()}


def test_the_beat_schema_accepts_what_is_encoded():
    jsonschema.Draft202012Validator(messages.json_schemas()["beats"]).validate(json.loads(encode_beats([beat()])))


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=json_payloads())
def test_what_decodes_also_fits_the_beat_schema(value: bytes):
    try:
        found = decode_beats(value, PATIENT.encode())
    except MessageError:
        return
    if any(isinstance(one, MessageError) for one in found):
        return
    jsonschema.Draft202012Validator(messages.json_schemas()["beats"]).validate(json.loads(value))


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("scores", messages.Score(1, "p/MLII/5", "p", "MLII", 5, 0.1, 0.5, 1.2, 3.0, False, "ab")),
        ("alerts", messages.Alert(1, "p/MLII/5", "p", "MLII", 5, 4.2, 3.0, 0.1, 0.5, "map distance", "ab")),
    ],
)
def test_scores_and_alerts_fit_their_schema_and_come_back(topic: str, message: messages.Score | messages.Alert):
    value = messages.encode(message)
    jsonschema.Draft202012Validator(messages.json_schemas()[topic]).validate(json.loads(value))
    decode = messages.decode_score if topic == "scores" else messages.decode_alert
    assert decode(value) == message
