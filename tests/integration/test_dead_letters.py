"""A thousand generated payloads go through the worker: each is scored or stands on the dead-letter topic."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from confluent_kafka import Message, Producer

from ecgwatch import bundle, messages
from ecgwatch.errors import MessageError
from ecgwatch.messages import CONTENT_TYPE, JSON, MSGPACK, Beat, decode_beats, encode_beats
from ecgwatch.patients import prepare
from tests.integration.conftest import Cluster
from tests.integration.kafka_server import create_topic
from tests.integration.traffic import Site, templates, until

pytestmark = pytest.mark.kafka

COUNT = 1000
BROKER_LIMIT = 1_048_588  # Kafka's default message.max.bytes, of a batch
CONTRACT = bundle.load("default").manifest.contract


@dataclass(frozen=True)
class Payload:
    key: bytes | None
    value: bytes | None
    content_type: str | None


def payload(number: int) -> Payload:
    """Payload of this number: about a third can be scored, the others are wrong in some way."""
    rng = random.Random(number)
    form = rng.choice([JSON, MSGPACK])
    beat = replace(rng.choice(templates()), patient=f"bed-{number % 7}", r_time_ms=number)
    good = encode_beats([beat], form)
    key = beat.patient.encode()
    same = {"lead": beat.lead, "fs_hz": beat.fs_hz, "r_time_ms": number + 1_000_000}
    ways: list[Callable[[], Payload]] = [
        lambda: Payload(key, good, form),
        lambda: Payload(key, good, form),
        lambda: Payload(key, good[: rng.randrange(len(good))], form),
        lambda: Payload(key, damage(good, rng), form),
        lambda: Payload(key, rng.randbytes(rng.randrange(2000)), rng.choice([form, None, "text/plain", "\n"])),
        lambda: Payload(key, encode_beats([unfit(beat, rng)], MSGPACK), MSGPACK),
        lambda: Payload(rng.choice([None, b"", b"somebody", b"\xff"]), good, form),
        lambda: Payload(key, good.replace(b"version", b"VERSION"), form),
        lambda: Payload(key, rng.choice([None, b"", b"null", b"[" * 100_000, b'{"version": 7}']), form),
        lambda: Payload(key, encode_beats([beat, replace(unfit(beat, rng), **same)], MSGPACK), MSGPACK),
    ]
    return rng.choice(ways)()


def damage(value: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(value)
    for _ in range(rng.randrange(1, 5)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def unfit(beat: Beat, rng: random.Random) -> Beat:
    changes: dict[str, object] = rng.choice(
        [
            {"samples": np.full_like(beat.samples, np.nan)},
            {"samples": np.zeros_like(beat.samples)},
            {"samples": beat.samples * 1e19},
            {"samples": beat.samples[: beat.r_index + 20]},
            {"fs_hz": 1000.0},
            {"lead": "V9"},
            {"rr_ms": beat.rr_ms[:0]},
            {"rr_ms": -beat.rr_ms},
            {"r_index": len(beat.samples) + 1},
        ]
    )
    return replace(beat, **changes)  # type: ignore[arg-type]


def largest(limit: int) -> bytes:
    """JSON that no reader accepts, with as many bytes as one record may have in a batch of `limit` bytes."""
    return b'{"version": 1, "patient": "' + b"x" * (limit - 200) + b'"}'


def expected(sent: Payload) -> tuple[set[str], str | None]:
    """The ids to be scored, and the reason slug of the dead letter, by the decoder and the contract alone."""
    try:
        decoded = dict(enumerate(decode_beats(sent.value, sent.key, sent.content_type)))
    except MessageError as error:
        return set(), error.reason
    refused = {number: one for number, one in decoded.items() if isinstance(one, MessageError)}
    beats = {number: one for number, one in decoded.items() if isinstance(one, Beat)}
    prepared = prepare(list(beats.values()), CONTRACT, {})
    refused |= {list(beats)[index]: error for index, error in prepared.refused.items()}
    scored = {one.id for number, one in beats.items() if number not in refused}
    return scored, refused[min(refused)].reason if refused else None


def send(site: Site, payloads: list[Payload]) -> dict[tuple[int, int], Payload]:
    """Publish and return what stands at which (partition, offset)."""
    places: dict[tuple[int, int], Payload] = {}
    producer = Producer({"bootstrap.servers": site.brokers, "message.max.bytes": 2_000_000})
    for sent in payloads:

        def delivered(error: object, message: Message, sent: Payload = sent) -> None:
            assert error is None, error
            places[message.partition() or 0, message.offset() or 0] = sent

        headers = [] if sent.content_type is None else [(CONTENT_TYPE, sent.content_type.encode())]
        producer.produce(site.beats, key=sent.key, value=sent.value, headers=headers, on_delivery=delivered)
        producer.poll(0)
    assert producer.flush(60) == 0
    return places


def headers(message: Message) -> dict[str, str]:
    return {name: value.decode() for name, value in message.headers() or ()}


def dead_letters(site: Site) -> dict[tuple[int, int], Message]:
    """The dead letters by the place where their message stood."""
    found = site.read(site.dead_letters)
    by_place = {
        (int(headers(letter)["ecgwatch-partition"]), int(headers(letter)["ecgwatch-offset"])): letter
        for letter in found
    }
    assert len(by_place) == len(found)
    return by_place


@pytest.fixture(scope="module")
def passed(kafka: Cluster, tmp_path_factory: pytest.TempPathFactory):
    """The site after a worker has seen all payloads and stopped, what was sent, and the dead letters."""
    with Site(kafka.brokers, tmp_path_factory.mktemp("worker")) as site:
        sent = send(site, [payload(number) for number in range(COUNT)])
        worker = site.worker()
        site.all_committed(60)
        assert worker.stop()[0] == 0
        yield site, sent, dead_letters(site), worker.log


def test_dead_letters_that_the_topic_takes_one_by_one_alone_arrive_whole(site: Site):
    site.dead_letters = create_topic(site.brokers, f"{site.dead_letters}-small", 6, **{"max.message.bytes": "70000"})
    worker = site.worker().ready()
    send(site, [Payload(b"patient", bytes(60_000), None)] * 10)
    until(lambda: len(site.read(site.dead_letters)) == 10, 20, "the dead letters are there")
    assert {len(letter.value() or b"") for letter in site.read(site.dead_letters)} == {60_000}
    assert worker.stop()[0] == 0


def test_the_payloads_hold_many_of_each_kind():
    slugs = [expected(payload(number))[1] for number in range(COUNT)]
    assert slugs.count(None) > COUNT / 10
    assert len(set(slugs)) >= 14


def test_exactly_the_beats_that_can_be_scored_are_scored(passed):
    site, sent, _, _ = passed
    wanted = [id_ for one in sent.values() for id_ in sorted(expected(one)[0])]
    assert sorted(site.scored()) == sorted(wanted)


def test_each_bad_payload_is_a_dead_letter_with_its_reason(passed):
    _, sent, letters, _ = passed
    wanted = {place: reason for place, one in sent.items() if (reason := expected(one)[1]) is not None}
    assert {place: headers(letter)["ecgwatch-reason"] for place, letter in letters.items()} == wanted


def test_a_dead_letter_keeps_the_bytes_and_the_key(passed):
    _, sent, letters, _ = passed
    for place, letter in letters.items():
        assert (letter.value() or None, letter.key() or None) == (sent[place].value or None, sent[place].key or None)


def test_a_dead_letter_names_the_topic(passed):
    site, _, letters, _ = passed
    assert {headers(letter)["ecgwatch-topic"] for letter in letters.values()} == {site.beats}


def test_the_headers_fit_the_committed_schema(passed):
    _, _, letters, _ = passed
    schema = messages.json_schemas()["dead-letters"]
    for letter in letters.values():
        assert set(schema["required"]) <= headers(letter).keys() <= schema["properties"].keys()


def test_neither_headers_nor_log_name_a_patient(passed):
    _, _, letters, log = passed
    said = log + json.dumps([headers(letter) for letter in letters.values()])
    assert "bed-" not in said


def test_a_payload_as_large_as_the_broker_takes_is_a_dead_letter_with_length_and_hash(kafka: Cluster, tmp_path):
    with Site(kafka.brokers, tmp_path, partitions=1) as site:
        huge = Payload(b"p", largest(BROKER_LIMIT), JSON)
        sent = send(site, [huge])
        worker = site.worker()
        site.all_committed(60)
        assert worker.stop()[0] == 0
        (letter,) = dead_letters(site).values()
    (one,) = sent.values()
    said = headers(letter)
    assert one.value is not None
    if "ecgwatch-length" in said:
        assert one.value.startswith(letter.value() or b"!")
        assert int(said["ecgwatch-length"]) == len(one.value)
    else:
        assert letter.value() == one.value
