"""Typical beats on their topic: read, saved, reset; on the embedded broker, four partitions a topic."""

import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import msgspec
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from ecgwatch import cli, kafka, messages, patients
from ecgwatch.baselines import KEPT_S, SAVE_EVERY_S, Baselines, describe
from ecgwatch.batch import Record
from ecgwatch.beats import Bedside
from ecgwatch.broker import embedded_broker
from ecgwatch.config import Kafka, Settings, Topics
from ecgwatch.errors import DataError
from ecgwatch.logs import who
from ecgwatch.patients import Patients
from ecgwatch.saved import to_message
from tests.integration.traffic import templates, until

CONTRACT = Bedside()
TOPIC = "ecg-baselines"
QUIET = {"log_level": 0}
Headers = tuple[tuple[str, bytes], ...]


class Site:
    """The topic on a broker."""

    def __init__(self, brokers: str, topic: str = TOPIC) -> None:
        self.settings = Settings(kafka=Kafka(brokers=brokers), topics=Topics(baselines=topic))
        self.topic = topic
        self.producer = Producer(kafka.producer_settings(self.settings))

    def put(
        self, partition: int, key: str | None, value: bytes | None, written_ms: int = 0, headers: Headers = ()
    ) -> None:
        """Append a record to a partition, as if it were then (0: now)."""
        self.producer.produce(
            self.topic, key=key, value=value, partition=partition, timestamp=written_ms, headers=list(headers)
        )
        assert self.producer.flush(10) == 0

    def publish(self, records: list[Record]) -> None:
        """Publish records as the worker does."""
        for record in records:
            assert record.topic == self.topic
            assert record.key is not None
            self.put(record.partition, record.key.decode(), record.value, headers=record.headers)

    def loaded(self, *partitions: int) -> Baselines:
        """Baselines as a worker has them that took these partitions."""
        made = Baselines(self.settings, CONTRACT)
        for partition in partitions:
            made.load(partition)
        return made

    def read(self, partition: int) -> list[Message]:
        """All records of a partition."""
        consumer = Consumer(kafka.reader_settings(self.settings) | {"enable.partition.eof": False})
        _, end = consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=10)
        consumer.assign([TopicPartition(self.topic, partition, 0)])
        found = consumer.consume(end, timeout=10) if end else []
        consumer.close()
        return found


@pytest.fixture
def site() -> Iterator[Site]:
    with embedded_broker([TOPIC]) as address:
        yield Site(address)


@pytest.fixture
def command(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The command line's settings are those of the site."""
    monkeypatch.setenv("ECGWATCH_KAFKA_BROKERS", site.settings.kafka.brokers)
    monkeypatch.setenv("ECGWATCH_TOPICS_BASELINES", TOPIC)
    return site


def learn(into: Patients, patient: str, *seconds: float, lead: str = "MLII") -> None:
    """Let a patient's beats of these times be seen."""
    source = templates()[0]
    beats = [replace(source, patient=patient, lead=lead, r_time_ms=round(1000 * at)) for at in seconds]
    assert not patients.prepare(beats, CONTRACT, into).refused


def saved(patient: str, *seconds: float, lead: str = "MLII", contract: Bedside = CONTRACT) -> bytes:
    """What is saved of a patient after beats at these times."""
    known: Patients = {}
    learn(known, patient, *seconds, lead=lead)
    return messages.encode(to_message(patient, known[patient], contract))


def counts(of: Baselines) -> dict[str, int]:
    """How many beats each patient is known by."""
    return {name: sum(lead.count for lead in leads.values()) for name, leads in of.patients.items()}


class TestLoad:
    def test_it_reads_the_last_value_of_each_patient_of_a_partition_and_no_other(self, site: Site):
        site.put(1, "a", saved("a", 1))
        site.put(1, "b", saved("b", 1, 2))
        site.put(1, "a", saved("a", 1, 2, 3))
        site.put(2, "c", saved("c", 1))
        assert counts(site.loaded(1)) == {"a": 3, "b": 2}

    def test_what_is_read_is_what_was_known_to_the_last_bit(self, site: Site):
        known: Patients = {}
        learn(known, "a", *range(1, 20))
        learn(known, "a", *range(1, 5), lead="V1")
        message = to_message("a", known["a"], CONTRACT)
        site.put(0, "a", messages.encode(message))
        assert to_message("a", site.loaded(0).patients["a"], CONTRACT) == message

    def test_another_partition_adds_to_it(self, site: Site):
        site.put(1, "a", saved("a", 1))
        site.put(3, "c", saved("c", 1, 2))
        assert counts(site.loaded(1, 2, 3)) == {"a": 1, "c": 2}

    def test_a_tombstone_means_unknown_and_a_value_after_it_known(self, site: Site):
        for patient in "ab":
            site.put(0, patient, saved(patient, 1))
            site.put(0, patient, None)
        site.put(0, "b", saved("b", 5, 6))
        assert counts(site.loaded(0)) == {"b": 2}

    def test_garbage_is_left_out_with_a_warning_and_the_rest_is_read(
        self, site: Site, caplog: pytest.LogCaptureFixture
    ):
        site.put(0, "a", saved("a", 1))
        site.put(0, "b", b"\xff no JSON")
        site.put(0, "c", b"{}")
        site.put(0, "d", saved("d", 1).replace(b'"typical":null', b'"typical":"no base64"'))
        site.put(0, None, b"nobody")
        site.put(0, "e", saved("e", 1, 2))
        with caplog.at_level(logging.WARNING, "ecgwatch"):
            found = site.loaded(0)
        assert counts(found) == {"a": 1, "e": 2}
        assert [record.getMessage().split(":")[0] for record in caplog.records] == [
            "a typical beat cannot be read and is learned again"
        ] * 3

    @pytest.mark.parametrize(
        "value",
        [
            b'{"version":1,"patient":"\xff","leads":[]}',
            b"[" * 100_000,
            b'{"version":1,"patient":"b","leads":' + b"[" * 100_000,
            b'{"version":1,"patient":"b","leads":[],"more":' + b"[" * 100_000,
            saved("b", 1).replace(b'"known":"none"', b'"known":"somebody"'),
            b'{"version":' + b"9" * 10_000 + b',"patient":"b","leads":[]}',
            b'{"version":2,"patient":"b","leads":[]}',
            saved("b", *range(1, 20)).replace(b'"stride":1', b'"stride":0'),
            saved("b", *range(1, 20)).replace(b'"stride":1', b'"stride":' + b"9" * 30),
            saved("b", *range(1, 20)).replace(b'"left_ms":null', b'"left_ms":-1'),
            saved("somebody", 1),
        ],
        ids=range(11),
    )
    def test_no_record_whatever_ends_a_worker(self, site: Site, caplog: pytest.LogCaptureFixture, value: bytes):
        site.put(0, "b", value)
        site.put(0, "e", saved("e", 1, 2))
        with caplog.at_level(logging.WARNING, "ecgwatch"):
            found = site.loaded(0)
        (said,) = [record.getMessage() for record in caplog.records]
        assert "cannot be read and" in said
        assert "somebody" not in said
        assert {name: count for name, count in counts(found).items() if count} == {"e": 2}
        learn(found.patients, "b", *range(30, 40))
        assert {record.key for record in [*found.due({"b": 0}), *found.unsaved()]} == {b"b"}

    def test_of_a_record_with_a_damaged_lead_the_others_are_read(self, site: Site):
        known: Patients = {}
        for lead in ("MLII", "V1"):
            learn(known, "a", *range(10), lead=lead)
        message = to_message("a", known["a"], CONTRACT)
        damaged = [msgspec.structs.replace(message.leads[0], accepted=7.0), message.leads[1]]
        site.put(0, "a", messages.encode(msgspec.structs.replace(message, leads=damaged)))
        assert list(site.loaded(0).patients["a"]) == ["V1"]

    def test_what_another_contract_made_is_unknown_and_is_saved_over(self, site: Site):
        site.put(0, "a", saved("a", 1, contract=Bedside(fs_hz=250.0)))
        found = site.loaded(0)
        assert counts(found) == {"a": 0}
        assert (found.due({"a": 0}), found.unsaved()) == ([], [])
        learn(found.patients, "a", 2)
        (record,) = found.unsaved()
        assert messages.decode_baseline(record.value or b"").leads[0].fs_hz == CONTRACT.fs_hz

    def test_more_records_than_are_read_at_once_are_all_read(self, site: Site):
        value = saved("a", 1)
        for _ in range(1203):
            site.producer.produce(TOPIC, key="a", value=value, partition=2)
        site.put(2, "last", saved("last", 1, 2))
        assert set(site.loaded(2).patients) == {"a", "last"}

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_of_a_patient_in_two_partitions_the_newer_record_counts_in_whatever_order_they_are_read(
        self, site: Site, order: tuple[int, int]
    ):
        site.put(1, "a", saved("a", 1, 2, 3))
        site.put(0, "a", saved("a", 1, 2))
        found = site.loaded(*order)
        assert counts(found) == {"a": 3}
        learn(found.patients, "a", 4)
        assert [record.partition for record in found.unsaved()] == [1]

    def test_a_record_read_later_does_not_undo_what_was_learned_meanwhile(self, site: Site):
        site.put(1, "a", saved("a", 1, 2))
        found = site.loaded(0)
        learn(found.patients, "a", 3, 4, 5)
        found.load(1)
        assert counts(found) == {"a": 3}


class TestSilent:
    """Patients of past stays: what is saved of them is not read for ever."""

    NOW_MS = 1_795_478_400_000
    LONG_S = CONTRACT.forget_s + 1
    LEARNED = range(400)  # seconds of beats after which a typical beat is learned

    def at(self, *seconds_ago: float) -> list[float]:
        return [self.NOW_MS / 1000 - ago for ago in seconds_ago]

    def two(self, site: Site, beats_ago_s: float, written_ago_s: float, beats: Sequence[int] = range(3)) -> None:
        """A patient and one who is that far behind in beats and in writing."""
        site.put(0, "here", saved("here", *self.at(9, 8, 7)), self.NOW_MS)
        gone = saved("gone", *self.at(*(beats_ago_s + 7 + back for back in reversed(beats))))
        site.put(0, "gone", gone, self.NOW_MS - round(1000 * written_ago_s))

    def test_who_is_behind_by_more_than_forget_s_is_not_read_and_is_taken_off_the_topic(
        self, site: Site, caplog: pytest.LogCaptureFixture
    ):
        self.two(site, self.LONG_S, self.LONG_S)
        with caplog.at_level(logging.INFO, "ecgwatch"):
            found = site.loaded(0)
        assert set(found.patients) == {"here"}
        assert [record.getMessage() for record in caplog.records] == [
            "partition 0: typical beats of 1 patients read",
            "partition 0: 1 patients were silent for too long and are forgotten",
        ]
        records = found.due({})
        assert [(record.key, record.value, record.partition) for record in records] == [(b"gone", None, 0)]
        assert found.due({}) == []
        site.publish(records)
        assert site.loaded(0).due({}) == []
        assert [len(site.read(partition)) for partition in range(4)] == [3, 0, 0, 0]

    @pytest.mark.parametrize(
        ("beats_s", "written_s"),
        [
            (CONTRACT.forget_s - 1, CONTRACT.forget_s - 1),  # twelve hours are not over
            (10**9, 60),  # the other's clock is years ahead, or this one's beats are a replay of the past
            (60, 10**6),  # no worker ran for days, and one wrote the first of those who waited
        ],
    )
    def test_who_may_be_alive_is_read(self, site: Site, beats_s: float, written_s: float):
        self.two(site, beats_s, written_s)
        found = site.loaded(0)
        assert (counts(found), found.due({})) == ({"here": 3, "gone": 3}, [])

    @pytest.mark.parametrize(("silent_s", "known"), [(LONG_S, {"here", "gone"}), (KEPT_S + 1, {"here"})])
    def test_of_whom_a_typical_beat_was_learned_is_kept_for_a_week(self, site: Site, silent_s: float, known: set[str]):
        self.two(site, silent_s, silent_s, beats=self.LEARNED)
        found = site.loaded(0)
        assert set(found.patients) == known
        assert {record.key for record in found.due({})} == {b"here", b"gone"} - {name.encode() for name in known}

    def test_a_patient_back_the_next_day_is_judged_by_what_was_known_whether_the_worker_ran_on_or_not(self, site: Site):
        now = 0.0
        ran_on = Baselines(site.settings, CONTRACT, clock=lambda: now)
        learn(ran_on.patients, "a", *self.LEARNED)
        site.publish(ran_on.due({"a": 1}))
        now = 2 * CONTRACT.forget_s
        learn(ran_on.patients, "b", now)
        site.publish(ran_on.due({"b": 1}))
        for worker in (ran_on, site.loaded(1)):
            learn(worker.patients, "a", now)
            assert worker.patients["a"]["MLII"].known == "learned"

    def test_a_partition_that_was_left_alone_for_years_is_read(self, site: Site):
        site.put(0, "a", saved("a", 1), 1_000_000)
        site.put(0, "b", saved("b", 1, 2), 1_000_000)
        site.put(1, "c", saved("c", *self.at(1)), self.NOW_MS)
        assert set(site.loaded(0, 1).patients) == {"a", "b", "c"}

    def test_its_tombstone_does_not_undo_what_is_learned_of_a_patient_who_is_back(self, site: Site):
        self.two(site, self.LONG_S, self.LONG_S)
        found = site.loaded(0)
        learn(found.patients, "gone", *self.at(*range(90, 0, -1)))
        records = found.due({"gone": 0})
        assert [(record.key, record.value is None) for record in records] == [(b"gone", False)]
        site.publish(records)
        found.patients["end"] = {}
        site.put(0, "end", None)
        until_heard(found, "end")
        assert counts(found)["gone"] == 90
        assert counts(site.loaded(0))["gone"] == 90

    def test_what_was_left_behind_in_another_partition_goes_and_the_patient_stays(self, site: Site):
        self.two(site, self.LONG_S, self.LONG_S)
        site.put(1, "gone", saved("gone", *self.at(4, 3, 2, 1)), self.NOW_MS)
        found = site.loaded(1, 0)
        site.publish(found.due({}))
        found.patients["end"] = {}
        site.put(0, "end", None)
        until_heard(found, "end")
        assert counts(found) == {"here": 3, "gone": 4}

    def test_of_very_many_no_batch_carries_more_than_500(self, site: Site):
        site.put(0, "here", saved("here", *self.at(1)), self.NOW_MS)
        for number in range(700):
            name, written_ms = f"p{number}", self.NOW_MS - round(1000 * self.LONG_S)
            value = saved(name, *self.at(self.LONG_S + 2))
            site.producer.produce(TOPIC, key=name, value=value, partition=0, timestamp=written_ms)
        assert site.producer.flush(10) == 0
        found = site.loaded(0)
        assert [len(found.due({})) for _ in range(3)] == [500, 200, 0]

    def test_what_is_given_back_is_not_taken_off(self, site: Site):
        self.two(site, self.LONG_S, self.LONG_S)
        found = site.loaded(0)
        found.give_back()
        assert found.due({}) == []


class TestHear:
    def test_a_patient_whose_tombstone_arrives_later_is_forgotten_and_no_other(self, site: Site):
        for patient in "abc":
            site.put(1, patient, saved(patient, 1))
        site.put(3, "d", saved("d", 1))
        found = site.loaded(1, 3)
        found.hear()
        assert set(found.patients) == set("abcd")
        site.put(1, "a", None)
        site.put(3, "d", None)
        until_heard(found, "a")
        until_heard(found, "d")
        assert set(found.patients) == set("bc")

    def test_what_workers_save_is_not_taken_for_a_wish_to_forget(self, site: Site):
        site.put(1, "a", saved("a", 1))
        found = site.loaded(1)
        learn(found.patients, "a", 2, 3)
        site.put(1, "a", saved("a", 1, 2))
        site.put(1, "end", saved("end", 1))
        found.patients["end"] = {}
        site.put(1, "end", None)
        until_heard(found, "end")
        assert counts(found) == {"a": 3}

    def test_a_tombstone_heard_once_does_not_forget_what_is_learned_afterwards(self, site: Site):
        site.put(1, "a", saved("a", 1))
        found = site.loaded(1)
        site.put(1, "a", None)
        until_heard(found, "a")
        learn(found.patients, "a", 5)
        found.load(2)  # reading goes on where it was
        site.put(1, "end", None)
        found.patients["end"] = {}
        until_heard(found, "end")
        assert counts(found) == {"a": 1}

    @pytest.mark.parametrize("published", [Baselines.unsaved, partial(Baselines.due, partition_of={"b": 1})])
    def test_a_save_that_was_on_its_way_does_not_undo_a_reset(
        self, site: Site, published: Callable[[Baselines], list[Record]]
    ):
        found = site.loaded(1)
        learn(found.patients, "a", *range(90))
        on_its_way = found.due({"a": 1})
        site.put(1, "a", None)
        site.publish(on_its_way)
        until_heard(found, "a")
        site.publish(published(found))
        assert counts(site.loaded(1)) == {}
        assert (found.due({}), found.unsaved()) == ([], [])
        learn(found.patients, "a", *range(100, 190))
        found.hear()  # its own tombstone is no wish
        site.publish(found.due({"a": 1}))
        assert counts(site.loaded(1)) == {"a": 90}

    def test_a_tombstone_of_a_patient_who_is_not_known_changes_nothing(self, site: Site):
        found = site.loaded(0)
        learn(found.patients, "a", 1)
        found.patients["end"] = {}
        site.put(0, "z", None)
        site.put(0, "end", None)
        until_heard(found, "end")
        assert counts(found) == {"a": 1}

    def test_without_partitions_there_is_nothing_to_hear(self, site: Site):
        site.loaded().hear()


def until_heard(found: Baselines, patient: str) -> None:
    """Hear until a patient is forgotten."""

    def forgotten() -> bool:
        found.hear()
        return patient not in found.patients

    until(forgotten, 10, "the tombstone is heard")


class TestSave:
    @staticmethod
    def due_seconds(found: Baselines) -> list[int]:
        """At which seconds of 200 beats, one a second, patient a is due; and then not at once again."""
        seconds = []
        for second in range(200):
            learn(found.patients, "a", 1000 + second)
            if found.due({"a": 2}):
                seconds.append(second)
            assert found.due({"a": 2}) == []
        return seconds

    def test_a_patient_is_due_after_60_s_of_beats_and_then_once(self, site: Site):
        assert SAVE_EVERY_S == 60
        assert self.due_seconds(site.loaded(2)) == [60, 120, 180]

    def test_of_what_was_read_it_is_60_s_after_the_newest_beat_in_it(self, site: Site):
        site.put(2, "a", saved("a", 100))
        found = site.loaded(2)
        learn(found.patients, "a", 159.9)
        assert found.due({"a": 2}) == []
        learn(found.patients, "a", 160)
        assert len(found.due({"a": 2})) == 1

    def test_after_a_clock_was_set_back_it_goes_on_being_saved(self, site: Site):
        site.put(2, "a", saved("a", *range(99_980, 100_000)))
        assert self.due_seconds(site.loaded(2)) == [60, 120, 180]

    def test_a_lead_whose_clock_was_ahead_does_not_keep_the_others_from_being_saved(self, site: Site):
        found = site.loaded(2)
        learn(found.patients, "a", 1000, 1001)
        learn(found.patients, "a", 1000 + 6 * 3600, lead="V1")
        site.publish(found.due({"a": 2}) + found.unsaved())
        assert self.due_seconds(found) == [61, 121, 181]
        site.publish(found.unsaved())
        assert counts(site.loaded(2)) == {"a": 201}

    def test_only_patients_of_the_batch_are_due(self, site: Site):
        found = site.loaded(2)
        for patient in "ab":
            learn(found.patients, patient, *range(100))
        assert [record.key for record in found.due({"b": 2})] == [b"b"]

    def test_a_patient_none_of_whose_beats_could_be_scored_is_not_due(self, site: Site):
        assert site.loaded(2).due({"a": 2}) == []

    def test_unsaved_is_what_changed_since_it_was_saved_and_then_nothing(self, site: Site):
        site.put(0, "old", saved("old", 1))
        site.put(0, "seen", saved("seen", 1))
        found = site.loaded(0)
        learn(found.patients, "seen", 2)
        learn(found.patients, "new", 5)
        learn(found.patients, "due", *range(90))
        assert found.due({"seen": 0, "new": 1}) == []
        assert len(found.due({"due": 1})) == 1
        assert sorted(record.key or b"" for record in found.unsaved()) == [b"new", b"seen"]
        assert found.unsaved() == []

    def test_a_patient_first_seen_in_a_batch_that_failed_is_not_saved_and_the_others_are(self, site: Site):
        found = site.loaded(0)
        learn(found.patients, "failed", 1)
        learn(found.patients, "seen", 1)
        found.due({"seen": 0})
        assert [record.key for record in found.unsaved()] == [b"seen"]

    def test_a_record_holds_all_that_is_known_and_names_the_partition_of_the_beats(self, site: Site):
        site.put(3, "there", saved("there", 1))
        found = site.loaded(3)
        learn(found.patients, "there", 2)
        for partition in range(3):
            learn(found.patients, f"p{partition}", 0, 70)
            learn(found.patients, f"p{partition}", 0, 70, lead="V1")
        records = found.due({f"p{partition}": partition for partition in range(3)}) + found.unsaved()
        assert {record.key: record.partition for record in records} == {b"p0": 0, b"p1": 1, b"p2": 2, b"there": 3}
        for record in records:
            assert record.topic == TOPIC
            message = messages.decode_baseline(record.value or b"")
            assert message == to_message(message.patient, found.patients[message.patient], CONTRACT)

    def test_the_next_worker_goes_on_where_this_one_ended(self, site: Site):
        first = site.loaded(0, 1)
        learn(first.patients, "a", *range(20))
        learn(first.patients, "b", *range(90))
        site.publish(first.due({"a": 0, "b": 1}))
        learn(first.patients, "b", 91)
        site.publish(first.unsaved())
        second = site.loaded(0, 1)
        assert counts(second) == {"a": 20, "b": 91}
        assert [len(site.read(partition)) for partition in range(4)] == [1, 2, 0, 0]
        for name, leads in first.patients.items():
            assert to_message(name, second.patients[name], CONTRACT) == to_message(name, leads, CONTRACT)

    def test_give_back_forgets_all(self, site: Site):
        site.put(1, "a", saved("a", 1))
        found = site.loaded(1)
        learn(found.patients, "a", 2)
        learn(found.patients, "b", 2)
        found.due({"b": 1})
        found.give_back()
        assert (found.patients, found.unsaved()) == ({}, [])
        learn(found.patients, "a", 500)
        site.put(1, "a", None)
        site.put(2, "end", saved("end", 1))
        found.load(2)  # partition 1 is another worker's: its tombstone is not for this one
        site.put(2, "end", None)
        until_heard(found, "end")
        assert counts(found) == {"a": 1}

    def test_a_partition_that_comes_back_is_read_again(self, site: Site):
        site.put(1, "a", saved("a", 1))
        found = site.loaded(1)
        found.give_back()
        site.put(1, "a", saved("a", 1, 2, 3))
        found.load(1)
        assert counts(found) == {"a": 3}
        assert found.unsaved() == []


class TestCommands:
    @pytest.mark.parametrize("partition", range(4))
    def test_show_finds_a_patient_in_whichever_partition_with_every_lead(
        self, command: Site, partition: int, capsys: pytest.CaptureFixture[str]
    ):
        known: Patients = {}
        learn(known, "bed 5", *range(1_000_000, 1_000_020))
        learn(known, "bed 5", 1_000_003, lead="V1")
        for number in range(4):
            command.put(number, "another", saved("another", 1))
        command.put(partition, "bed 5", messages.encode(to_message("bed 5", known["bed 5"], CONTRACT)))
        assert cli.main(["baseline", "show", "bed 5"]) == 0
        mlii, picture, v1 = capsys.readouterr().out.splitlines()
        assert mlii == "MLII: learning, 20 beats, the newest of 1970-01-12T13:46:59+00:00"
        assert picture.endswith("%")
        assert v1 == "V1: none, 1 beats, the newest of 1970-01-12T13:46:43+00:00"

    @pytest.mark.parametrize("partition", range(4))
    def test_after_reset_show_ends_with_one_line_on_stderr_and_the_code_of_missing_data(
        self, command: Site, partition: int, capsys: pytest.CaptureFixture[str]
    ):
        command.put(partition, "a", saved("a", 1))
        command.put(partition, "b", saved("b", 1))
        assert cli.main(["baseline", "reset", "a"]) == 0
        assert capsys.readouterr().out == (
            f"reset on topic {TOPIC}; the typical beat is learned again from the next beat on\n"
        )
        tombstone = command.read(partition)[-1]
        assert (tombstone.key(), tombstone.value(), tombstone.partition()) == (b"a", None, partition)
        assert cli.main(["baseline", "show", "a"]) == DataError.exit_code
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err == (
            f"ecgwatch: topic {TOPIC} holds no patient of that name; one is saved a minute after its first beat\n"
        )
        assert cli.main(["baseline", "show", "b"]) == 0

    def test_of_a_patient_in_two_partitions_show_prefers_the_newer_and_reset_reaches_both(
        self, command: Site, capsys: pytest.CaptureFixture[str]
    ):
        command.put(0, "a", saved("a", 1, 2, 3))
        command.put(1, "b", saved("b", 1))
        command.put(2, "a", saved("a", 4))
        command.put(3, "a", saved("a", 1, 2))
        assert cli.main(["baseline", "show", "a"]) == 0
        assert capsys.readouterr().out.startswith("MLII: none, 1 beats")
        assert cli.main(["baseline", "reset", "a"]) == 0
        assert [command.read(partition)[-1].value() is None for partition in range(4)] == [True, False, True, True]
        assert len(command.read(1)) == 1

    def test_a_terminal_that_lacks_the_picture_s_characters_gets_their_numbers(
        self, command: Site, monkeypatch: pytest.MonkeyPatch
    ):
        command.put(0, "a", saved("a", *range(20)))
        written = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
        assert cli.main(["baseline", "show", "a"]) == 0
        sys.stdout.flush()
        assert b"\\u2581" in written.getvalue()

    @pytest.mark.parametrize("action", ["show", "reset"])
    def test_a_patient_of_whom_nothing_is_known_is_missing_data(
        self, command: Site, action: str, capsys: pytest.CaptureFixture[str]
    ):
        command.put(0, "a", b"garbage")
        assert cli.main(["baseline", action, "a"]) == DataError.exit_code
        assert capsys.readouterr().err.count("\n") == 1
        assert len(command.read(0)) == 1  # nothing was written

    def test_a_worker_hears_a_reset(self, command: Site):
        command.put(2, "a", saved("a", 1))
        command.put(2, "b", saved("b", 1))
        found = command.loaded(1, 2)
        assert cli.main(["baseline", "reset", "a"]) == 0
        until_heard(found, "a")
        assert counts(found) == {"b": 1}

    def test_without_a_broker_it_is_one_line_with_its_own_code(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ):
        monkeypatch.setenv("ECGWATCH_KAFKA_BROKERS", "127.0.0.1:9")
        monkeypatch.setenv("ECGWATCH_KAFKA_START_TIMEOUT_S", "0.5")
        assert cli.main(["baseline", "show", "a"]) == 69
        assert capsys.readouterr().err.startswith("ecgwatch: no broker at 127.0.0.1:9 within 0.5 s")


def test_a_typical_beat_is_described_by_a_picture_of_one_line():
    known: Patients = {}
    learn(known, "a", *range(30))
    (lead,) = to_message("a", known["a"], CONTRACT).leads
    first, second = describe(lead).splitlines()
    picture, figures = second.strip().split("  ")
    assert first == "MLII: learning, 30 beats, the newest of 1970-01-01T00:00:29+00:00"
    assert len(picture) == CONTRACT.samples / 2
    assert set(picture) <= set("▁▂▃▄▅▆▇█")
    named = msgspec.structs.replace(lead, lead="\x1b]0;x\x07")
    assert describe(named).startswith("\\x1b]0;x\\x07: learning")  # a terminal would obey
    assert {"▁", "█"} & set(picture)
    assert figures.endswith("mV, usual deviation 0.0 %")


def test_times_of_r_that_do_not_go_on_are_said_once_a_minute(site: Site, caplog: pytest.LogCaptureFixture):
    now = 0.0
    found = Baselines(site.settings, CONTRACT, clock=lambda: now)
    learn(found.patients, "right", *range(100))
    learn(found.patients, "bed 5", *[1] * 64)
    for now in (0.0, 59.0, 61.0):
        assert found.due({"right": 0, "bed 5": 0}) or now
    first, second = caplog.messages
    assert first == second
    assert first.startswith(f"{who('bed 5', site.settings.logs)}: the times of R of 64 beats in a row do not go on")
    assert "bed 5" not in first


@pytest.mark.parametrize(("beats", "kept_s"), [(1, CONTRACT.forget_s), (400, KEPT_S)])
def test_a_patient_silent_for_longer_than_would_count_is_dropped_from_memory_and_the_others_stay(
    site: Site, beats: int, kept_s: float
):
    now = 0.0
    found = Baselines(site.settings, CONTRACT, clock=lambda: now)
    learn(found.patients, "a", *range(beats))
    learn(found.patients, "b", 1)
    found.due({"a": 0, "b": 0})
    now = 0.9 * kept_s
    found.due({"b": 0})
    assert set(found.patients) == {"a", "b"}
    now = 1.1 * kept_s
    found.due({"b": 0})
    assert set(found.patients) == {"b"}
    assert {record.key for record in found.unsaved()} == {b"b"}


def test_a_learned_patient_who_was_back_within_the_week_is_not_dropped_for_the_time_before(site: Site):
    now = 0.0
    found = Baselines(site.settings, CONTRACT, clock=lambda: now)
    learn(found.patients, "a", *range(400))
    found.due({"a": 0})
    now = 1.1 * CONTRACT.forget_s
    found.due({})
    now = KEPT_S - 60
    found.due({"a": 0})
    now = KEPT_S + 60
    found.due({})
    assert set(found.patients) == {"a"}
