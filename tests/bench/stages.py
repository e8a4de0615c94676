"""What a beat costs in each stage between offset and commit, without Kafka: one process, one core."""

from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from ecgwatch import bundle
from ecgwatch.batch import Received, Rules, process
from ecgwatch.messages import MSGPACK, Beat, decode_beats, encode_beats
from ecgwatch.patients import Patients, prepare
from ecgwatch.scorer import Model, Scorer, Scores
from tests.bench.measure import Figure, cpu_us, paired_cpu_us
from tests.integration.traffic import PATIENTS, templates
from training.score_graph import encoder_of

BATCH = 256
LEARNED = PATIENTS * 600  # so many beats, and every typical beat has been learned
RATE = 120.0  # false alerts per hour: the threshold that lets most alerts through


def beat(number: int) -> Beat:
    """The beat of this number on a ward of PATIENTS, who take turns: record 233's, in order, again and again."""
    turn, source = number // PATIENTS, templates()
    rounds, place = divmod(turn, len(source))
    span_ms = source[-1].r_time_ms - source[0].r_time_ms + int(source[1].rr_ms[-1])
    r_ms = source[place].r_time_ms + rounds * span_ms
    return replace(source[place], patient=f"patient-{number % PATIENTS}", r_time_ms=r_ms)


@dataclass(frozen=True)
class Stages:
    """Microseconds of CPU a beat, at batch BATCH."""

    decode: float
    prepare: float
    model: float
    map: float
    answers: float
    score_records: float

    @property
    def scorer(self) -> float:
        """Model and map: what the worker's overhead is counted beyond."""
        return self.model + self.map


@threadpool_limits.wrap(1, user_api="blas")  # as the worker does
def measure() -> tuple[list[Figure], Stages]:
    """Time the model, what the map adds to it in the whole graph, and the stages around them."""
    loaded = bundle.load("default")
    model, graph = Model(encoder_of(loaded.model), "cpu", 1), Model(loaded.model, "cpu", 1, Scores._fields)
    scorer = Scorer(loaded, "cpu", 1)
    known: Patients = {}
    prepare([beat(number) for number in range(LEARNED)], scorer.contract, known)
    beats = [beat(LEARNED + number) for number in range(1024)]
    x = prepare(beats, scorer.contract, known).x
    figures, times = [], {}
    for size in (1, 64, BATCH, 1024):
        part = x[:size]
        bare, searched = paired_cpu_us(lambda part=part: model.run(part), lambda part=part: graph.run(part), size)
        times[size] = bare, searched
        if size != BATCH:
            figures.append(Figure(f"bare model, batch {size}", bare, "us CPU/beat"))
            figures.append(
                Figure(f"map search and placement, batch {size}", searched, "us CPU/beat", limit=round(bare / 3, 1))
            )
    received = [
        Received("beats", 0, number, one.patient.encode(), encode_beats([one], MSGPACK), MSGPACK)
        for number, one in enumerate(beats[:BATCH])
    ]
    quiet = Rules(scorer, loaded, loaded.threshold(RATE), "", "alerts", "dead", BATCH)
    full = Rules(scorer, loaded, loaded.threshold(RATE), "scores", "alerts", "dead", BATCH)
    decode = cpu_us(lambda: [decode_beats(one.value, one.key, MSGPACK) for one in received], BATCH)
    prepared = cpu_us(lambda: prepare(beats[:BATCH], scorer.contract, known), BATCH)
    scored = cpu_us(lambda: scorer.score(x[:BATCH]), BATCH)
    whole = cpu_us(lambda: process(received, quiet, known), BATCH)
    with_scores = cpu_us(lambda: process(received, full, known), BATCH)
    bare, searched = times[BATCH]
    answers = max(0.0, whole - decode - prepared - scored)
    return figures, Stages(decode, prepared, bare, searched, answers, max(0.0, with_scores - whole))


def sample(count: int) -> np.ndarray:
    """Return model inputs of real beats, float32[count, length]."""
    contract = bundle.load("default").manifest.contract
    return prepare([beat(number) for number in range(count)], contract, {}).x
