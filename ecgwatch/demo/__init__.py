"""`ecgwatch demo`: the real worker on real beats, in one terminal, with an embedded broker.

A demonstration, not a show: the worker is that of production, in a process of its own; the beats are those of MIT-BIH
test records; every alert is judged against the records' annotations, and what was missed is counted too.
"""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from rich.console import Console
from rich.live import Live

from ecgwatch import bundle, config
from ecgwatch.beats import of_heartbeats
from ecgwatch.broker import embedded_broker
from ecgwatch.demo import view
from ecgwatch.demo.plan import EXCERPTS, Planned, beds, planned, read
from ecgwatch.demo.tally import Tally
from ecgwatch.errors import EcgwatchError
from ecgwatch.messages import CONTENT_TYPE, decode_alert, decode_score, encode_beats

TOPICS = config.Topics(scores="ecg-scores")
WORKER_START_S = 60.0
LAST_ANSWERS_S = 60.0  # how long to wait, after the last beat, for answers on their way on a machine that is busy
STOP_S = 10.0
HEAR_S = 0.02
PICTURE_EVERY_S, LINE_EVERY_S = 0.125, 5.0
LOG_LINES = 50

Draw = Callable[[str, list[str]], None]  # what is going on, and the new alerts as lines


def run(
    settings: config.Settings,
    records: Sequence[str] | None = None,
    speed: float = 4.0,
    seconds: float | None = None,
    rate: float | None = None,
    plain: bool = False,
    svg: Path | None = None,
    console: Console | None = None,
) -> int:
    """Run the demo to the end of its excerpts, or for `seconds`, or until Ctrl-C, and return 0.

    records: names of shipped excerpts (None: all); speed: times real time; rate: false alerts per hour that the
    threshold is meant for (None: the highest that the bundle knows); plain: lines instead of the live picture;
    svg: where to save the last picture.
    Raises ConfigError for an unknown record, EcgwatchError where the worker ends by itself or leaves beats unanswered.
    """
    console = console or Console()
    patients = beds(records)
    plan = planned({bed: read(name) for bed, name in patients.items()}, start_ms=time.time_ns() // 1_000_000)
    log: Sequence[str] = ()
    tally = Tally({item.beat.id: item.truth for item in plan})
    loaded = bundle.load(settings.model.bundle)
    of_heartbeats(loaded.manifest.contract)
    # a threshold for the ward would show next to nothing within a minute
    rate = rate or max(threshold.false_alerts_per_hour for threshold in loaded.manifest.thresholds)
    facts = _facts(loaded, rate, patients, speed)
    try:
        with (
            embedded_broker(
                [TOPICS.beats, TOPICS.scores, TOPICS.alerts, TOPICS.dead_letters, TOPICS.baselines]
            ) as address,
            _Worker(on_broker(settings, address, rate)) as worker,
            _drawing(console, plain or not console.is_terminal, facts, tally, worker.log) as draw,
        ):
            log = worker.log
            _play(plan, _Show(_Traffic(address, tally), worker, tally, draw), speed, seconds)
    except KeyboardInterrupt:
        console.print("Stopped by Ctrl-C.")
    for line in view.summary(facts, tally):
        console.print(line, highlight=False, soft_wrap=True)
    if svg:
        svg.write_text(view.as_svg(facts, tally, list(log)))
    return 0


def on_broker(settings: config.Settings, address: str, rate: float) -> config.Settings:
    """Return the user's model, worker and log settings with the demo's broker, topics and alert threshold."""
    return msgspec.structs.replace(
        settings,
        kafka=config.Kafka(brokers=address, group="ecgwatch-demo"),
        topics=TOPICS,
        alerts=config.Alerts(false_alerts_per_hour=rate),
    )


def environment(settings: config.Settings) -> dict[str, str]:
    """Return this process's environment with all settings in it, so that a child has these and no others."""
    here = {name: text for name, text in os.environ.items() if name not in config.SECRETS.values()}
    for section, table in msgspec.to_builtins(settings).items():
        for key, value in table.items():
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            here[config.variable(section, key)] = text
    return here


def _facts(loaded: bundle.Bundle, rate: float, patients: dict[str, str], speed: float) -> view.Facts:
    threshold = loaded.threshold(rate)
    return view.Facts(
        head=(
            f"{len(patients)} patients, from MIT-BIH test records, at {speed:g} x real time; no medical device",
            f"Model {loaded.manifest.name}, sha256 {loaded.sha256[:12]}",
            "Trained on other patients; on unseen ones like these it is known to be weak.",
            f"Alert above {threshold:.2f}: meant for {rate:g} false alerts per hour of normal rhythm.",
        ),
        played={bed: f"{name} {EXCERPTS[name]}" for bed, name in patients.items()},
        target_per_hour=rate,
    )


class _Worker:
    """`ecgwatch worker` in a process of its own; stopped with SIGTERM at the end of the block."""

    def __init__(self, settings: config.Settings) -> None:
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ecgwatch.demo.leash"],
            env=environment(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,  # the terminal's Ctrl-C reaches the demo alone, which then stops the worker
        )
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def check(self) -> None:
        """Raise EcgwatchError, with the worker's last words, where it has ended by itself."""
        if (code := self._process.poll()) is not None:
            self._reader.join()
            raise EcgwatchError(
                f"the worker ended with exit code {code}: {self.log[-1] if self.log else 'it said nothing'}"
            )

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.log.append(line.rstrip())


class _Traffic:
    """The demo's side of Kafka: it publishes beats and hears what the worker answers."""

    def __init__(self, address: str, tally: Tally) -> None:
        self._tally = tally
        quiet = {"bootstrap.servers": address, "log_level": 0}
        # murmur2_random is Kafka's own partitioner; librdkafka's default puts patients on other partitions
        self._producer = Producer({**quiet, "partitioner": "murmur2_random", "linger.ms": 0})
        self._consumer = Consumer(
            {**quiet, "group.id": "ecgwatch-demo-view", "enable.auto.commit": False, "fetch.wait.max.ms": 10}
        )
        known = self._consumer.list_topics(timeout=10).topics
        self._consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for topic in (TOPICS.scores, TOPICS.alerts, TOPICS.dead_letters)
                for partition in known[topic].partitions
            ]
        )

    def send(self, item: Planned) -> None:
        """Publish one beat."""
        self._tally.sent(item.beat.id, time.monotonic())
        self._producer.produce(
            TOPICS.beats,
            key=item.beat.patient,
            value=encode_beats([item.beat], item.content_type),
            headers={CONTENT_TYPE: item.content_type},
        )

    def hear(self) -> list[str]:
        """Take in what has arrived, waiting a moment for the first; return the new alerts as lines."""
        self._producer.poll(0)
        messages = self._consumer.consume(num_messages=500, timeout=HEAR_S)
        return [line for message in messages if message.error() is None and (line := self._take(message))]

    def _take(self, message: Message) -> str | None:
        topic, value, key = message.topic(), message.value() or b"", message.key() or b""
        if topic == TOPICS.scores:
            self._tally.scored(decode_score(value), time.monotonic())
        elif topic == TOPICS.dead_letters:
            self._tally.refused(key.decode())
        elif judged := self._tally.alerted(decode_alert(value)):
            return view.alert_line(judged)
        return None


class _Show:
    """One turn of the demo: hear what has arrived, see that the worker lives, draw."""

    def __init__(self, traffic: _Traffic, worker: _Worker, tally: Tally, draw: Draw) -> None:
        self.traffic, self._worker, self._tally, self._draw = traffic, worker, tally, draw

    def turn(self, state: str) -> None:
        self._worker.check()
        self._draw(state, self.traffic.hear())

    def wait_for_answers(self, state: str, timeout_s: float) -> None:
        """Go on until every beat sent is answered; raises EcgwatchError where that takes too long."""
        deadline = time.monotonic() + timeout_s
        while self._tally.outstanding:
            if time.monotonic() > deadline:
                raise EcgwatchError(f"the worker left {self._tally.outstanding} beats unanswered for {timeout_s:g} s")
            self.turn(state)


def _play(plan: Sequence[Planned], show: _Show, speed: float, seconds: float | None) -> None:
    """Publish the beats with their timing; the clock starts when the worker has answered the first."""
    ends_s = time.monotonic() + (seconds or float("inf"))
    waiting = deque(plan)
    first = waiting.popleft()
    show.traffic.send(first)
    show.wait_for_answers("The worker is starting.", WORKER_START_S)
    zero_s = time.monotonic() - first.due_s / speed
    while waiting and time.monotonic() < ends_s:
        while waiting and zero_s + waiting[0].due_s / speed <= time.monotonic():
            show.traffic.send(waiting.popleft())
        show.turn(f"{len(waiting)} beats to come; Ctrl-C ends the demo.")
    show.wait_for_answers("Waiting for the last scores.", LAST_ANSWERS_S)


@contextmanager
def _drawing(console: Console, plain: bool, facts: view.Facts, tally: Tally, log: deque[str]) -> Iterator[Draw]:
    if plain:
        for line in facts.head:
            console.print(line, highlight=False, soft_wrap=True)
        yield _lines(console, tally)
        return
    with Live(console=console, auto_refresh=False) as live:
        yield _pictures(live, facts, tally, log)


def _lines(console: Console, tally: Tally) -> Draw:
    due_s = time.monotonic() + LINE_EVERY_S

    def draw(state: str, alerts: list[str]) -> None:
        nonlocal due_s
        lines = list(alerts)
        if time.monotonic() >= due_s:
            due_s = time.monotonic() + LINE_EVERY_S
            lines.append(view.progress_line(tally))
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    return draw


def _pictures(live: Live, facts: view.Facts, tally: Tally, log: deque[str]) -> Draw:
    due_s = 0.0

    def draw(state: str, alerts: list[str]) -> None:
        nonlocal due_s
        if time.monotonic() >= due_s:
            due_s = time.monotonic() + PICTURE_EVERY_S
            live.update(view.picture(facts, tally, state, list(log), *live.console.size), refresh=True)

    return draw
