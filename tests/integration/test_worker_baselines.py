"""What a worker knows of its patients goes on in the next worker, and ends when an operator says so."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from confluent_kafka import Producer

from ecgwatch import bundle
from ecgwatch.baselines import SAVE_EVERY_S
from ecgwatch.batch import Received, Rules, process
from ecgwatch.beats import Bedside
from ecgwatch.demo import plan
from ecgwatch.messages import JSON, Beat, Score, decode_baseline, decode_score, encode, encode_beats
from ecgwatch.patients import Patients, prepare
from ecgwatch.records import beats_of
from ecgwatch.saved import to_message
from ecgwatch.scorer import Scorer
from tests.integration.traffic import Site, until

pytestmark = pytest.mark.kafka
PATIENTS = ("100", "213", "233")


@pytest.fixture(scope="module")
def beats() -> list[Beat]:
    """Four minutes of three patients, those of a minute together."""
    found = [one for name in PATIENTS for one in beats_of(plan.read(name), f"bed-{name}")[2:-3]]
    return sorted(found, key=lambda one: one.r_time_ms)


@pytest.fixture(scope="module")
def expected(beats: list[Beat]) -> dict[str, Score]:
    """The scores of a single worker that nothing interrupts."""
    loaded = bundle.load("default")
    rules = Rules(Scorer(loaded, "cpu"), loaded, loaded.threshold(10.0), "scores", "alerts", "dead", 256)
    known: Patients = {}
    batch = [Received("beats", 0, n, one.patient.encode(), encode_beats([one]), JSON) for n, one in enumerate(beats)]
    answers = [one for n in range(0, len(batch), 50) for one in process(batch[n : n + 50], rules, known).records]
    return {score.id: score for one in answers if one.topic == "scores" for score in [decode_score(one.value or b"")]}


def send(site: Site, beats: Sequence[Beat], partition: int = -1) -> None:
    producer = Producer({"bootstrap.servers": site.brokers, "partitioner": "murmur2_random", "log_level": 0})
    for one in beats:
        producer.produce(site.beats, encode_beats([one]), one.patient.encode(), partition)
        producer.poll(0)
    assert producer.flush(30) == 0


def scores(site: Site) -> dict[str, Score]:
    return {score.id: score for one in site.read(site.scores) for score in [decode_score(one.value() or b"")]}


def assert_same(found: dict[str, Score], wanted: dict[str, Score]) -> None:
    assert found.keys() == wanted.keys()
    for name, score in wanted.items():
        assert found[name].score == pytest.approx(score.score, rel=1e-4, abs=1e-5)
        assert found[name].baseline == score.baseline


def test_after_a_stop_the_next_worker_goes_on_as_if_nothing_had_happened(
    site: Site, beats: list[Beat], expected: dict[str, Score]
):
    half = len(beats) // 2
    for part in (beats[:half], beats[half:]):
        worker = site.worker().ready()
        send(site, part)
        site.all_committed()
        assert worker.stop()[0] == 0
    assert_same(scores(site), expected)
    assert {score.baseline for score in expected.values()} == {"none", "learning"}
    saved = {one.key().decode(): decode_baseline(one.value() or b"") for one in site.read(site.baselines)}
    counts = {name: sum(one.patient == name for one in beats) for name in saved}
    assert {name: one.leads[0].beats for name, one in saved.items()} == counts


def test_a_kill_9_costs_a_patient_no_more_than_the_last_minute_of_what_was_learned(site: Site, beats: list[Beat]):
    half = len(beats) // 2
    worker = site.worker().ready()
    send(site, beats[:half])
    site.all_committed()
    worker.kill()
    saved = {one.key().decode(): decode_baseline(one.value() or b"") for one in site.read(site.baselines)}
    before = {name: [one.r_time_ms for one in beats[:half] if one.patient == name] for name in saved}
    assert set(saved) == {f"bed-{name}" for name in PATIENTS}
    for name, times in before.items():
        lost = times[saved[name].leads[0].beats :]
        assert not lost or times[-1] - lost[0] < 1000 * SAVE_EVERY_S
    worker.start().ready()
    send(site, beats[half:])
    site.all_committed()
    assert scores(site).keys() == {one.id for one in beats}
    assert {scores(site)[one.id].baseline for one in beats[half:]} == {"learning"}


def test_a_patient_given_to_another_worker_of_the_group_takes_the_typical_beat_along(
    site: Site, beats: list[Beat], expected: dict[str, Score]
):
    third = len(beats) // 3
    site.worker().ready()
    send(site, beats[:third])
    site.all_committed()
    second = site.worker().ready()  # half of the partitions are taken from the first
    send(site, beats[third : 2 * third])
    site.all_committed()
    assert second.stop()[0] == 0  # and given back
    send(site, beats[2 * third :])
    site.all_committed()
    assert_same(scores(site), expected)


def reset(site: Site, patient: str) -> None:
    """Run `ecgwatch baseline reset` and wait until its record is there."""
    command = [sys.executable, "-m", "ecgwatch", "baseline", "reset", patient]
    done = subprocess.run(command, env=site.environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    until(lambda: site.read(site.baselines)[-1].value() is None, 20, "the record without a value is there")


def test_a_reset_is_not_undone_by_a_worker_that_stops_before_the_next_beat(site: Site, beats: list[Beat]):
    mine = [one for one in beats if one.patient == "bed-100"]
    worker = site.worker().ready()
    send(site, mine[:150])
    site.all_committed()
    send(site, mine[150:160])  # learned, and not saved yet
    site.all_committed()
    reset(site, "bed-100")
    # what was written reaches those who listen within milliseconds; a second worker takes its place in more
    second = site.worker().ready()
    assert worker.stop()[0] == 0
    assert site.read(site.baselines)[-1].value() is None
    send(site, mine[160:170])
    site.all_committed()
    assert scores(site)[mine[160].id].baseline == "none"
    assert second.stop()[0] == 0


def test_a_patient_who_is_reset_is_learned_again_from_the_next_beat(site: Site, beats: list[Beat]):
    mine = [one for one in beats if one.patient == "bed-100"]
    worker = site.worker().ready()
    send(site, mine[:200])
    site.all_committed()
    until(lambda: len(site.read(site.baselines)) > 0, 20, "the patient is saved")
    reset(site, "bed-100")
    # who has just taken a partition begins to hear within a second or so: beats of somebody else until it has
    others = iter([one for one in beats if one.patient != "bed-100"])

    def heard() -> bool:
        send(site, [next(others)])
        site.all_committed()
        return "a patient's typical beat was reset" in worker.log

    until(heard, 20, "the worker has heard it")
    send(site, mine[200:220])
    site.all_committed()
    found = scores(site)
    assert found[mine[199].id].baseline == "learning"
    assert [found[one.id].baseline for one in mine[200:207]] == ["none"] * 7
    assert found[mine[219].id].baseline == "learning"


def test_a_record_left_behind_in_another_partition_neither_counts_nor_survives_a_reset(site: Site, beats: list[Beat]):
    """Partitions were added, or a sender's partitioner changed: the patient's key falls elsewhere now."""
    yesterday = [one for one in beats if one.patient == "bed-100"][:210]
    today = [replace(one, r_time_ms=one.r_time_ms + 86_400_000) for one in yesterday]
    somebody = next(one for one in beats if one.patient == "bed-213")

    def records() -> list[tuple[int, int | None]]:
        """Of the patient: partition and number of beats, None for a tombstone."""
        mine = [one for one in site.read(site.baselines) if one.key() == b"bed-100"]
        return [(one.partition(), decode_baseline(v).leads[0].beats if (v := one.value()) else None) for one in mine]

    worker = site.worker().ready()
    send(site, yesterday[:150], 0)
    site.all_committed()
    send(site, today[:150], 1)
    site.all_committed()
    assert worker.stop()[0] == 0
    assert {partition for partition, _ in records()} == {0, 1}
    *_, known = [count for partition, count in records() if partition == 1]
    assert known is not None
    worker.start().ready()
    for part, partition in ((today[150:170], 1), ([somebody], 0), (today[170:200], 1)):
        send(site, part, partition)
        site.all_committed()
    assert worker.stop()[0] == 0
    assert [count for partition, count in records() if partition == 1][-1] == known + 50

    command = [sys.executable, "-m", "ecgwatch", "baseline", "reset", "bed-100"]
    done = subprocess.run(command, env=site.environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {partition for partition, count in records() if count is None} == {0, 1}
    worker.start().ready()
    for part, partition in (([somebody], 0), (today[200:201], 1)):
        send(site, part, partition)
        site.all_committed()
    until(lambda: today[200].id in scores(site), 20, "the next beat is scored")
    assert scores(site)[today[200].id].baseline == "none"


def test_damaged_records_of_patients_end_no_worker_and_are_said_without_a_name(site: Site, beats: list[Beat]):
    mine = [one for one in beats if one.patient == "bed-100"][:20]
    known: Patients = {}
    prepare(mine[:10], Bedside(), known)
    whole = encode(to_message("bed-100", known["bed-100"], Bedside()))
    damaged = [
        b'{"version":1,"patient":"\xff","leads":[]}',
        b"[" * 100_000,
        whole.replace(b'"stride":1', b'"stride":0'),
    ]
    producer = Producer({"bootstrap.servers": site.brokers, "log_level": 0})
    for partition, value in enumerate(damaged):
        producer.produce(site.baselines, value, "bed-100", partition)
    assert producer.flush(30) == 0
    worker = site.worker().ready()
    for partition in range(len(damaged)):
        send(site, mine[10 + partition : 11 + partition], partition)
        site.all_committed()
    until(lambda: len(scores(site)) == len(damaged), 20, "all are scored")
    assert worker.log.count("cannot be read and") == len(damaged)
    assert "bed-100" not in worker.log
    assert worker.stop()[0] == 0
