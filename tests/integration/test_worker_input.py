"""Whatever stands on the beat topic: scored or on the dead-letter topic, and the worker goes on."""

import hashlib
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from ecgwatch import messages
from ecgwatch.messages import CONTENT_TYPE, JSON, MSGPACK, encode_beats
from tests.integration.traffic import Site, beat, until

pytestmark = pytest.mark.kafka
HEADERS = [(CONTENT_TYPE, MSGPACK.encode())]


@pytest.fixture
def producer(site: Site) -> Producer:
    return Producer(
        {
            "bootstrap.servers": site.brokers,
            "partitioner": "murmur2_random",
            "message.max.bytes": 10_000_000,
            "log_level": 0,
        }
    )


def headers(message: Message) -> dict[str, str]:
    return {name: value.decode() for name, value in message.headers() or []}


def odd_messages() -> dict[str, tuple[str | None, bytes | None, str]]:
    """Reason -> key, value and content type of a message that is refused for it."""
    good = beat(0)
    text = encode_beats([good]).decode()

    def packed(**changes: object) -> bytes:
        return encode_beats([replace(good, **changes)], MSGPACK)  # type: ignore[arg-type]

    nan = good.samples.copy()
    nan[7] = np.nan
    return {
        "no-value": (good.patient, None, JSON),
        "no-key": (None, text.encode(), JSON),
        "not-json": (good.patient, text[: len(text) // 2].encode(), JSON),
        "not-msgpack": (good.patient, packed()[:-9], MSGPACK),
        "schema": (good.patient, text.replace('"lead"', '"leed"').encode(), JSON),
        "version": (good.patient, text.replace('"version":1', '"version":2').encode(), JSON),
        "content-type": (good.patient, text.encode(), "application/xml"),
        "key-mismatch": ("somebody", text.encode(), JSON),
        "not-finite": (good.patient, packed(samples=nan), MSGPACK),
        "r-index": (good.patient, packed(r_index=len(good.samples)), MSGPACK),
        "rr": (good.patient, packed(rr_ms=-good.rr_ms), MSGPACK),
        "too-short": (good.patient, packed(samples=good.samples[: good.r_index + 9]), MSGPACK),
        "too-few-rr": (good.patient, packed(rr_ms=good.rr_ms[:0]), MSGPACK),
        "flat": (good.patient, packed(samples=np.zeros_like(good.samples)), MSGPACK),
        "lead": (good.patient, packed(lead="aVR"), MSGPACK),
    }


def test_each_kind_of_bad_message_goes_whole_to_the_dead_letters_with_its_reason_and_place(
    site: Site, producer: Producer
):
    odd = odd_messages()
    for key, value, content_type in odd.values():
        producer.produce(site.beats, key=key, value=value, headers=[(CONTENT_TYPE, content_type.encode())])
    assert producer.flush(20) == 0
    site.worker()
    until(lambda: len(site.read(site.dead_letters)) == len(odd), 20, "all are on the dead-letter topic")
    sent = {(message.partition(), message.offset()): message for message in site.read(site.beats)}
    found = {}
    for letter in site.read(site.dead_letters):
        said = headers(letter)
        source = sent[int(said["ecgwatch-partition"]), int(said["ecgwatch-offset"])]
        assert (letter.key(), letter.value()) == (source.key(), source.value())
        assert said["ecgwatch-topic"] == site.beats
        found[said["ecgwatch-reason"]] = letter.value()
    assert found == {reason: value for reason, (_, value, _) in odd.items()}
    site.all_committed()


def test_the_good_beats_of_a_message_with_a_bad_one_are_scored_and_the_bad_one_is_named(site: Site, producer: Producer):
    good, other = beat(0), beat(24)
    bad = replace(other, samples=other.samples[: other.r_index + 9], r_time_ms=1)
    producer.produce(site.beats, key=good.patient, value=encode_beats([good, bad, other], MSGPACK), headers=HEADERS)
    assert producer.flush(20) == 0
    site.worker()
    until(lambda: site.read(site.dead_letters), 20, "the message is on the dead-letter topic")
    site.all_committed()
    assert site.scored() == [good.id, other.id]
    assert headers(site.read(site.dead_letters)[0])["ecgwatch-error"].startswith("beat 1: ")


@pytest.mark.parametrize(
    "length", [1_048_400, 1_000_000], ids=["as large as the broker takes", "just under a megabyte"]
)
def test_a_large_payload_is_dead_lettered_and_the_worker_goes_on(site: Site, producer: Producer, length: int):
    value = random.Random(length).randbytes(length)
    producer.produce(site.beats, key="p", value=value)
    assert producer.flush(20) == 0
    site.worker()
    until(lambda: site.read(site.dead_letters), 20, "the message is on the dead-letter topic")
    letter = site.read(site.dead_letters)[0]
    said = headers(letter)
    if letter.value() != value:
        assert value.startswith(letter.value() or b"")
        assert len(letter.value() or b"") == 65536
        assert said["ecgwatch-length"] == str(length)
        assert said["ecgwatch-sha256"] == hashlib.sha256(value).hexdigest()
    assert (letter.value() == value) == (length == 1_000_000)
    site.all_committed()


def test_a_thousand_generated_payloads_are_all_answered_and_committed(site: Site, producer: Producer):
    chance = random.Random(1)
    good = [encode_beats([beat(number)], MSGPACK) for number in range(50)]
    for number in range(1000):
        value = bytearray(chance.choice(good))
        for _ in range(chance.choice([0, 1, 3, 30])):
            value[chance.randrange(len(value))] = chance.randrange(256)
        cut = chance.choice([len(value), len(value), chance.randrange(len(value))])
        key = chance.choice([f"patient-{number % 24}", "patient-1", "", None])
        form = chance.choice([MSGPACK, MSGPACK, MSGPACK, JSON, "", "\udcff"])
        producer.produce(
            site.beats,
            key=key,
            value=bytes(value[:cut]),
            headers=[(CONTENT_TYPE, form.encode("utf-8", "surrogateescape"))],
        )
    assert producer.flush(20) == 0
    worker = site.worker()
    worker.ready()
    site.all_committed()
    letters = Counter(headers(letter)["ecgwatch-reason"] for letter in site.read(site.dead_letters))
    assert len(site.scored()) + letters.total() >= 1000
    assert len(letters) >= 5
    assert worker.stop()[0] == 0


def test_offsets_deleted_before_they_were_read_are_counted_as_lost(site: Site):
    sender = site.sender()
    sender.send(200)
    admin = AdminClient({"bootstrap.servers": site.brokers, "log_level": 0})
    worker = site.worker().ready()
    site.all_committed()
    assert worker.stop()[0] == 0
    sender.send(200)
    partition = site.read(site.beats)[0].partition()
    end = max(message.offset() for message in site.read(site.beats) if message.partition() == partition)
    for future in admin.delete_records([TopicPartition(site.beats, partition, end)]).values():
        future.result(20)
    worker.start().ready()
    worker.says("lost: ")
    site.all_committed()
    line = next(line for line in worker.log.splitlines() if "lost: " in line)
    assert f"offsets of partition {partition} (" in line
    assert f"to {end - 1}) were deleted before they were read" in line


def test_a_patient_on_two_partitions_is_reported_once_without_the_name(site: Site, producer: Producer):
    for number in range(6):
        one = replace(beat(number), patient="Jane Roe")
        value = encode_beats([one], MSGPACK)
        producer.produce(site.beats, key=one.patient, value=value, headers=HEADERS, partition=number % 3)
    assert producer.flush(20) == 0
    worker = site.worker().ready()
    site.all_committed()
    assert worker.stop()[0] == 0
    assert worker.log.count("came from partition") == 1
    assert "Jane" not in worker.log


def test_the_identity_is_named_where_the_settings_allow_it(site: Site, producer: Producer):
    for partition in (0, 1):
        one = replace(beat(partition), patient="Jane Roe")
        value = encode_beats([one], MSGPACK)
        producer.produce(site.beats, key=one.patient, value=value, headers=HEADERS, partition=partition)
    assert producer.flush(20) == 0
    worker = site.worker(logs_identities="true")
    worker.says("patient Jane Roe came from partition")


def test_alerts_are_keyed_by_patient_and_name_the_model(site: Site):
    sender = site.sender()
    site.worker(alerts_false_alerts_per_hour="100").ready()
    sender.send(100)
    site.all_committed()
    alerts = site.read(site.alerts)
    assert alerts
    for message in alerts:
        alert = messages.decode_alert(message.value())
        assert message.key() == alert.patient.encode()
        assert len(alert.model) == 64
