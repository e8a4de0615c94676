"""The worker as a process on a real Kafka, seen from outside: CPU, memory, latency, start, crash, scaling."""

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from ecgwatch import messages
from ecgwatch.messages import CONTENT_TYPE, MSGPACK
from tests.bench.measure import Figure
from tests.bench.stages import BATCH, RATE, Stages, beat
from tests.integration.traffic import Site, Worker, until

BACKLOG = 20_000
LOAD_S = 45.0
WARM_UP_S = 15.0  # the broker's Java compiles what it does often; a ward's broker has run for weeks
IDLE_S = 10.0
CRASH_RATE = 50.0
CRASH_S = 25.0
SESSION_S = 10.0
# the shipped defaults, not the quick ones of the tests
SETTINGS = {
    "kafka_session_timeout_s": str(SESSION_S),
    "kafka_heartbeat_s": "2",
    "alerts_false_alerts_per_hour": f"{RATE:g}",
}
WITHOUT_MODEL = ("-m", "tests.bench.without_model")


@dataclass(frozen=True)
class Drain:
    """A backlog worked off by one worker."""

    cpu_us: float
    beats_per_s: float
    rss_mb: float


class Traffic:
    """Beats encoded beforehand, so that publishing costs the machine little."""

    def __init__(self) -> None:
        self._beats: list[tuple[str, str, bytes]] = []  # id, patient, value

    def send(self, site: Site, count: int, per_s: float = float("inf")) -> dict[str, float]:
        """Publish, at a rate or as fast as it goes, and return when each beat was given to the producer."""
        more = [beat(number) for number in range(len(self._beats), count)]
        self._beats += [(one.id, one.patient, messages.encode_beats([one], MSGPACK)) for one in more]
        producer = Producer(
            {
                "bootstrap.servers": site.brokers,
                "partitioner": "murmur2_random",
                "linger.ms": 5 if per_s < float("inf") else 20,  # 5: the default of Kafka 4's own clients
                "queue.buffering.max.kbytes": 400_000,
            }
        )
        given: dict[str, float] = {}
        header = [(CONTENT_TYPE, MSGPACK.encode())]
        begin = time.perf_counter()
        for number, (id_, patient, value) in enumerate(self._beats[:count]):
            if (early_s := begin + number / per_s - time.perf_counter()) > 0.001:
                time.sleep(early_s)
            given[id_] = time.perf_counter()
            producer.produce(site.beats, key=patient, value=value, headers=header)
            producer.poll(0)
        assert producer.flush(60) == 0
        return given


class Listener:
    """Notes when each id first arrives on a topic, in a thread."""

    def __init__(self, site: Site, topic: str) -> None:
        self.at: dict[str, float] = {}
        self._consumer = Consumer(
            {"bootstrap.servers": site.brokers, "group.id": "bench", "fetch.wait.max.ms": 500, "log_level": 0}
        )
        numbers = self._consumer.list_topics(topic, timeout=20).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in numbers])
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.topic = topic
        self.decode = messages.decode_alert if topic == site.alerts else messages.decode_score

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.at.setdefault(self.decode(message.value() or b"").id, time.perf_counter())


def cpu_s(worker: Worker) -> float:
    times = psutil.Process(worker.process.pid).cpu_times()
    return float(times.user + times.system)


class Bench:
    """All measurements with workers; each on topics and a group of its own."""

    def __init__(self, brokers: str, folder: Path) -> None:
        self._brokers = brokers
        self._folder = folder
        self._sites = 0
        self._traffic = Traffic()

    @contextmanager
    def _site(self) -> Iterator[Site]:
        self._sites += 1
        folder = self._folder / f"site{self._sites}"
        folder.mkdir()
        with Site(self._brokers, folder) as site:
            yield site

    def overhead(self, stages: Stages) -> tuple[list[Figure], Drain, Drain]:
        """CPU of a worker a beat beyond the model, and where it goes; both backlogs too, that of alerts only first."""
        faust = self._drain(arguments=WITHOUT_MODEL)
        quiet = self._drain()
        full = self._drain(scores=True)
        known = faust.cpu_us + stages.decode + stages.prepare + stages.scorer + stages.answers
        note = f"{quiet.cpu_us:.0f} in all, less model and map ({stages.scorer:.0f} at batch {BATCH})"
        figures = [
            Figure("worker's overhead, alerts only", quiet.cpu_us - stages.scorer, "us CPU/beat", limit=120, note=note),
            Figure(
                "worker's overhead, a score record per beat",
                full.cpu_us - stages.scorer,
                "us CPU/beat",
                limit=200,
                note=f"{full.cpu_us:.0f} in all",
            ),
            Figure("- consume, batch, commit (faust, aiokafka)", faust.cpu_us, "us CPU/beat"),
            Figure("- decode", stages.decode, "us CPU/beat"),
            Figure("- prepare (cut, resample, scale)", stages.prepare, "us CPU/beat"),
            Figure("- alerts: rule, encoding", stages.answers, "us CPU/beat"),
            Figure("- rest: publishing alerts, threads, caches", quiet.cpu_us - known, "us CPU/beat"),
            Figure("- score record: encoding", stages.score_records, "us CPU/beat"),
            Figure("- score record: publishing", full.cpu_us - quiet.cpu_us - stages.score_records, "us CPU/beat"),
            Figure("one worker, alerts only, backlog", quiet.beats_per_s, "beats/s"),
            Figure("one worker, score records, backlog", full.beats_per_s, "beats/s"),
            Figure("resident memory after a backlog", max(quiet.rss_mb, full.rss_mb), "MB", limit=300),
        ]
        return figures, quiet, full

    def idle(self) -> Figure:
        """CPU of a worker that has nothing to do."""
        with self._site() as site:
            worker = site.worker(**SETTINGS).ready()
            before = cpu_s(worker)
            time.sleep(IDLE_S)
            return Figure("idle worker", (cpu_s(worker) - before) / IDLE_S * 100, "% of a core")

    def alert_latency(self, per_s: float) -> list[Figure]:
        """From produce to the alert, at this rate of beats: the shipped settings, which publish no score records."""
        ms = self._latency(per_s, scores=False)
        note = f"{len(ms)} alerts of {(LOAD_S - WARM_UP_S) * per_s:.0f} beats at {per_s:.0f}/s: half load"
        return [
            Figure("produce to alert, p50", statistics.median(ms), "ms", note=note),
            Figure(
                "produce to alert, p99",
                statistics.quantiles(ms, n=100)[98],
                "ms",
                limit=50,
                note=f"slowest {ms[-1]:.0f} ms",
            ),
        ]

    def score_latency(self, per_s: float) -> list[Figure]:
        """From produce to the score record of every beat, at this rate; alerts are published with them."""
        ms = self._latency(per_s, scores=True)
        note = f"{len(ms)} beats at {per_s:.0f}/s: half load"
        return [
            Figure("produce to score record, p50", statistics.median(ms), "ms", note=note),
            Figure("produce to score record, p99", statistics.quantiles(ms, n=100)[98], "ms", limit=50),
        ]

    def _latency(self, per_s: float, scores: bool) -> list[float]:
        """Milliseconds from giving a beat to the producer until its record is heard, in order."""
        with self._site() as site:
            site.worker(**({} if scores else {"topics_scores": ""}), **SETTINGS).ready()
            with Listener(site, site.scores if scores else site.alerts) as heard:
                given = self._traffic.send(site, round(LOAD_S * per_s), per_s)
                site.all_committed(60)
                # what is committed was acknowledged before: the topic holds all there will be
                published = {heard.decode(message.value()).id for message in site.read(heard.topic)}
                assert not scores or published >= given.keys()
                until(lambda: published <= heard.at.keys(), 60, "every record is heard")
        warm = min(given.values()) + WARM_UP_S
        return sorted((at - given[id_]) * 1e3 for id_, at in heard.at.items() if given[id_] >= warm)

    def first_score(self) -> Figure:
        """From starting the process to the first score record; a beat waits already."""
        with self._site() as site:
            self._traffic.send(site, 1)
            with Listener(site, site.scores) as listener:
                begin = time.perf_counter()
                site.worker(**SETTINGS)
                until(lambda: listener.at, 60, "a first score")
            return Figure(
                "process start to first score",
                min(listener.at.values()) - begin,
                "s",
                limit=3,
                note="rebalance delay 0",
            )

    def crash(self) -> list[Figure]:
        """Longest wait of a beat when a worker is killed: alone and started again at once, or one of two."""
        figures = []
        for name, workers in (("restarted at once", 1), ("another takes over", 2)):
            with self._site() as site:
                running = [site.worker(**SETTINGS).ready() for _ in range(workers)]
                until(
                    lambda running=running: all(_holds_some(one) for one in running), 30, "each worker has partitions"
                )
                with Listener(site, site.scores) as listener:
                    sending = ThreadPoolExecutor(1).submit(
                        self._traffic.send, site, round(CRASH_RATE * CRASH_S), CRASH_RATE
                    )
                    time.sleep(5)
                    running[0].kill()
                    if workers == 1:
                        running[0].start()
                    sent = sending.result()
                    site.all_committed(60)
                    until(lambda sent=sent, at=listener.at: sent.keys() <= at.keys(), 20, "every score is heard")
                wait_s = max(listener.at[id_] - given for id_, given in sent.items())
            figures.append(Figure(f"longest wait after kill -9, {name}", wait_s, "s", note=f"session {SESSION_S:g} s"))
        return figures

    def scaling(self) -> list[Figure]:
        """A backlog that arrives at once, worked off by one worker and by two."""
        rates = [self._burst(workers) for workers in (1, 2)]
        note = f"{rates[0]:.0f} and {rates[1]:.0f} beats/s; broker and sender share the {psutil.cpu_count()} cores"
        return [Figure("two workers / one worker", rates[1] / rates[0], "x", note=note)]

    def _burst(self, workers: int) -> float:
        with self._site() as site:
            running = [site.worker(topics_scores="", **SETTINGS).ready() for _ in range(workers)]
            until(lambda: all(_holds_some(one) for one in running), 30, "each worker has partitions")
            begin = time.perf_counter()
            self._traffic.send(site, BACKLOG)
            site.all_committed(120)
            return BACKLOG / (time.perf_counter() - begin)

    def _drain(self, scores: bool = False, arguments: Sequence[str] = ()) -> Drain:
        with self._site() as site:
            self._traffic.send(site, BACKLOG)
            topics = {} if scores else {"topics_scores": ""}
            worker = site.worker(*arguments, **topics, **SETTINGS).ready()
            cpu, begin = cpu_s(worker), time.perf_counter()
            waiting = site.lag()
            site.all_committed(120)
            used_s, took_s = cpu_s(worker) - cpu, time.perf_counter() - begin
            rss = psutil.Process(worker.process.pid).memory_info().rss / 1e6
            with suppress(AssertionError):
                worker.stop()
        return Drain(used_s / waiting * 1e6, waiting / took_s, rss)


def _holds_some(worker: Worker) -> bool:
    """Whether the last assignment in its log holds a partition, and not all of them where two share."""
    lines = [line.rsplit("partitions: ", 1)[1] for line in worker.log.splitlines() if "INFO partitions: " in line]
    return bool(lines) and lines[-1] != "none"
