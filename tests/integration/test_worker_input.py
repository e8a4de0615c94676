"""Whatever stands on the beat topic: scored or on the dead-letter topic, and the worker goes on."""

import asyncio
import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from ecgwatch import bundle, messages
from ecgwatch.messages import CONTENT_TYPE, JSON, MSGPACK, encode_beats
from tests.integration.conftest import Cluster
from tests.integration.traffic import Site, beat

pytestmark = pytest.mark.kafka
HEADERS = [(CONTENT_TYPE, MSGPACK.encode())]

Place = tuple[int, int]  # partition, offset


@pytest.fixture(scope="module")
def ward(kafka: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose one worker takes what all tests here send: each looks at the answers to its own messages."""
    rates = [threshold.false_alerts_per_hour for threshold in bundle.load("default").manifest.thresholds]
    with Site(kafka.brokers, tmp_path_factory.mktemp("ward")) as site:
        worker = site.worker(alerts_false_alerts_per_hour=str(max(rates))).ready()
        yield site
        assert worker.stop()[0] == 0


class Outbox:
    """Publishes messages of any kind and keeps their places."""

    def __init__(self, site: Site, codec: str = "none") -> None:
        self._site = site
        self._producer = Producer(
            {
                "bootstrap.servers": site.brokers,
                "partitioner": "murmur2_random",
                "message.max.bytes": 10_000_000,
                "compression.type": codec,
                "log_level": 0,
            }
        )
        self.sent: dict[Place, tuple[str | None, bytes | None]] = {}

    def put(self, key: str | None, value: bytes | None, form: str | None = MSGPACK, partition: int = -1) -> None:
        """Publish a message; form: its content type, None for a header without value."""

        def delivered(error: object, message: Message) -> None:
            assert error is None
            self.sent[message.partition() or 0, message.offset() or 0] = key, value

        headers = [(CONTENT_TYPE, form and form.encode("utf-8", "surrogateescape"))]
        self._producer.produce(
            self._site.beats, key=key, value=value, headers=headers, partition=partition, on_delivery=delivered
        )

    def answered(self) -> dict[Place, Message]:
        """Wait until everything is answered and committed; return the dead letters of what was put here."""
        assert self._producer.flush(20) == 0
        self._site.all_committed()
        letters = {place(letter): letter for letter in self._site.read(self._site.dead_letters)}
        return {at: letter for at, letter in letters.items() if at in self.sent}


@pytest.fixture
def outbox(ward: Site) -> Outbox:
    return Outbox(ward)


def headers(message: Message) -> dict[str, str]:
    return {name: value.decode() for name, value in message.headers() or []}


def place(letter: Message) -> Place:
    said = headers(letter)
    return int(said["ecgwatch-partition"]), int(said["ecgwatch-offset"])


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
        "out-of-range": (good.patient, packed(samples=good.samples * 1e19), MSGPACK),
        "r-index": (good.patient, packed(r_index=len(good.samples)), MSGPACK),
        "rr": (good.patient, packed(rr_ms=-good.rr_ms), MSGPACK),
        "too-short": (good.patient, packed(samples=good.samples[: good.r_index + 9]), MSGPACK),
        "flat": (good.patient, packed(samples=np.zeros_like(good.samples)), MSGPACK),
    }


def test_each_kind_of_bad_message_goes_whole_to_the_dead_letters_with_its_reason(ward: Site, outbox: Outbox):
    odd = odd_messages()
    for key, value, form in odd.values():
        outbox.put(key, value, form)
    letters = outbox.answered()
    found = {headers(letter)["ecgwatch-reason"]: letter.value() for letter in letters.values()}
    assert found == {reason: value for reason, (_, value, _) in odd.items()}
    for at, letter in letters.items():
        key, _ = outbox.sent[at]
        assert letter.key() == (key and key.encode())
        assert headers(letter)["ecgwatch-topic"] == ward.beats


def test_a_content_type_without_value_means_json_and_one_that_is_no_utf_8_is_refused(ward: Site, outbox: Outbox):
    one = replace(beat(0), patient="headers")
    for form in (None, "\udcff"):
        outbox.put("headers", encode_beats([one]), form)
    (letter,) = outbox.answered().values()
    assert headers(letter)["ecgwatch-reason"] == "content-type"
    assert [id_ for id_ in ward.scored() if id_.startswith("headers/")] == [one.id]


def test_the_good_beats_of_a_message_with_a_bad_one_are_scored_and_the_bad_one_is_named(ward: Site, outbox: Outbox):
    good, other = (replace(beat(number), patient="partly") for number in (0, 24))
    bad = replace(other, samples=other.samples[: other.r_index + 9], r_time_ms=1)
    outbox.put("partly", encode_beats([good, bad, other], MSGPACK))
    (letter,) = outbox.answered().values()
    assert headers(letter)["ecgwatch-error"].startswith("beat 1: ")
    assert [id_ for id_ in ward.scored() if id_.startswith("partly/")] == [good.id, other.id]


class Latin1(str):
    """A header's name as a C or Go client may send it."""

    def encode(self, *_: str) -> bytes:
        return super().encode("latin-1")


async def send_named(site: Site, values: Sequence[bytes], partition: int) -> None:
    """Publish messages of one patient with a header whose name is no UTF-8."""
    async with AIOKafkaProducer(bootstrap_servers=site.brokers) as producer:
        for value in values:
            name = [(Latin1("tracé"), b"1"), (CONTENT_TYPE, MSGPACK.encode())]
            await producer.send_and_wait(site.beats, value, b"named", partition, headers=name)


def test_a_header_whose_name_is_no_utf_8_costs_no_beat_and_ends_no_worker(site: Site, monkeypatch: pytest.MonkeyPatch):
    for module in ("message_accumulator", "producer"):  # the compiled builder encodes names itself
        monkeypatch.setattr(f"aiokafka.producer.{module}.DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    mine = [replace(beat(number), patient="named", r_time_ms=number) for number in range(6)]
    others = site.sender()
    others.send(40)  # to all partitions, before anything is committed
    for some in (mine[:3], mine[3:]):  # read in the first fetch of a new group, and by a worker that has been at work
        forms = [encode_beats([one], form) for one, form in zip(some, (MSGPACK, JSON, MSGPACK), strict=True)]
        asyncio.run(send_named(site, [forms[0], b"\x00no beat", *forms[1:]], 3))
        if some[0] is mine[0]:
            worker = site.worker().ready()
        others.send(40)
        site.all_committed()
    found = site.scored()
    assert sorted(found) == sorted([*others.ids, *(one.id for one in mine)])
    assert [headers(letter)["ecgwatch-reason"] for letter in site.read(site.dead_letters)] == ["schema"] * 2
    assert "a header's name is no UTF-8 in a record at or after offset 0 of partition 0" in worker.log
    assert worker.stop()[0] == 0


@pytest.mark.parametrize(
    "length", [1_000_000, 1_048_400], ids=["just under a megabyte", "as large as the broker takes"]
)
def test_a_large_payload_is_dead_lettered_whole_where_the_broker_takes_it_else_cut(outbox: Outbox, length: int):
    value = random.Random(length).randbytes(length)
    outbox.put("large", value)
    (letter,) = outbox.answered().values()
    said = headers(letter)
    if length == 1_000_000:
        assert letter.value() == value
        assert "ecgwatch-length" not in said
    else:
        assert letter.value() == value[:65536]
        assert said["ecgwatch-length"] == str(length)
        assert said["ecgwatch-sha256"] == hashlib.sha256(value).hexdigest()


def test_a_thousand_generated_payloads_are_all_answered_and_committed(ward: Site, outbox: Outbox):
    chance = random.Random(1)
    good = [encode_beats([replace(beat(number), patient="damaged")], MSGPACK) for number in range(50)]
    for _ in range(1000):
        value = bytearray(chance.choice(good))
        for _ in range(chance.choice([0, 1, 3, 30])):
            value[chance.randrange(len(value))] = chance.randrange(256)
        cut = chance.choice([len(value), len(value), chance.randrange(len(value))])
        key = chance.choice(["damaged", "damaged", "damaged", "patient-1", "", None])
        form = chance.choice([MSGPACK, MSGPACK, MSGPACK, JSON, "", "\udcff"])
        outbox.put(key, bytes(value[:cut]), form)
    letters = outbox.answered()
    reasons = {headers(letter)["ecgwatch-reason"] for letter in letters.values()}
    scored = [id_ for id_ in ward.scored() if id_.startswith("damaged/")]
    assert len(letters) + len(scored) == 1000
    assert len(reasons) >= 6
    assert scored


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_beats_are_scored_whatever_codec_their_producer_uses(ward: Site, codec: str):
    outbox = Outbox(ward, codec)
    beats = [replace(beat(0), patient=codec, r_time_ms=number) for number in range(20)]  # one alone would stay as it is
    outbox.put(codec, encode_beats(beats), JSON)
    assert outbox.answered() == {}
    assert [id_ for id_ in ward.scored() if id_.startswith(f"{codec}/")] == [one.id for one in beats]


def test_alerts_are_keyed_by_patient_and_name_the_model(ward: Site, outbox: Outbox):
    for number in range(58):
        outbox.put("alerting", encode_beats([replace(beat(number), patient="alerting")], MSGPACK))
    outbox.answered()
    alerts = [
        messages.decode_alert(message.value()) for message in ward.read(ward.alerts) if message.key() == b"alerting"
    ]
    assert alerts
    assert {alert.patient for alert in alerts} == {"alerting"}
    assert {alert.model for alert in alerts} == {bundle.load("default").sha256}


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


@pytest.mark.parametrize("identities", [False, True], ids=["by a hash", "by name where the settings allow it"])
def test_a_patient_on_two_partitions_is_reported_once(site: Site, identities: bool):
    outbox = Outbox(site)
    for number in range(6):
        one = replace(beat(number), patient="Jane Roe")
        outbox.put(one.patient, encode_beats([one], MSGPACK), partition=number % 3)
    worker = site.worker(logs_identities=str(identities).lower())
    outbox.answered()
    assert worker.stop()[0] == 0
    assert worker.log.count("came from partition") == 1
    assert ("patient Jane Roe came from" in worker.log) == identities
    assert ("Jane" in worker.log) == identities
