"""What became of the beats, judged against the records' annotations; pure, time is an argument."""

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from ecgwatch.messages import Alert, Score

SHOWN_BEATS = 40
SHOWN_ALERTS = 12
LATENCIES = 1000

CLASS_NAMES = {
    "N": "normal beat",
    "S": "supraventricular ectopic beat",
    "V": "ventricular ectopic beat",
    "F": "fusion beat",
    "Q": "unclassifiable beat",
}


@dataclass(frozen=True)
class Truth:
    """What the annotations say of one beat: its patient, AAMI class and RR interval, seconds."""

    patient: str
    aami: str
    rr_s: float

    @property
    def is_normal(self) -> bool:
        """Whether the beat is of AAMI class N."""
        return self.aami == "N"


@dataclass(frozen=True)
class JudgedAlert:
    """An alert and the annotation of its beat."""

    alert: Alert
    truth: Truth

    @property
    def is_right(self) -> bool:
        """Whether the beat is abnormal."""
        return not self.truth.is_normal

    @property
    def verdict(self) -> str:
        """Say whether the alert is right, and of what class its beat is."""
        word = "right" if self.is_right else "false alert"
        return f"{word}: {CLASS_NAMES[self.truth.aami]}"


@dataclass
class Count:
    """Counts over one patient's beats, or everybody's; abnormal, missed and normal_s are of scored beats."""

    sent: int = 0
    scored: int = 0
    refused: int = 0
    abnormal: int = 0
    missed: int = 0
    right_alerts: int = 0
    false_alerts: int = 0
    learning: int = 0  # scored before their patient's typical beat was learned
    normal_s: float = 0.0

    @property
    def alerts(self) -> int:
        """All alerts, right and false ones."""
        return self.right_alerts + self.false_alerts

    @property
    def found(self) -> int:
        """Abnormal beats whose score is above the threshold; `missed` are the others."""
        return self.abnormal - self.missed

    @property
    def sensitivity(self) -> float | None:
        """Share of the abnormal beats that were found; None where there were none."""
        return self.found / self.abnormal if self.abnormal else None

    @property
    def false_alerts_per_hour(self) -> float | None:
        """Of normal rhythm: the RR intervals of the scored normal beats, added up."""
        return self.false_alerts / self.normal_s * 3600 if self.normal_s else None


@dataclass
class Tally:
    """All that the demo knows so far; beats and alerts that come twice count once."""

    truths: dict[str, Truth]  # by beat id
    patients: dict[str, Count] = field(default_factory=dict)
    recent: dict[str, deque[tuple[Score, Truth]]] = field(default_factory=dict)
    alerts: deque[JudgedAlert] = field(default_factory=lambda: deque(maxlen=SHOWN_ALERTS))
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES))
    _sent_at: dict[str, float] = field(default_factory=dict)
    _scored: set[str] = field(default_factory=set)
    _alerting: set[str] = field(default_factory=set)  # whose score says so
    _alerted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for patient in sorted({truth.patient for truth in self.truths.values()}):
            self.patients[patient] = Count()
            self.recent[patient] = deque(maxlen=SHOWN_BEATS)

    @property
    def total(self) -> Count:
        """The counts of all patients together."""
        names = vars(Count()).keys()
        return Count(**{name: sum(getattr(count, name) for count in self.patients.values()) for name in names})

    @property
    def outstanding(self) -> int:
        """Beats sent that were neither scored nor refused yet, and scored ones whose alert was not heard yet."""
        total = self.total
        return max(0, total.sent - total.scored - total.refused) + len(self._alerting - self._alerted)

    @property
    def latency_ms(self) -> float | None:
        """Median time from publishing a beat to reading its score, of the last beats."""
        return median(self.latencies_ms) if self.latencies_ms else None

    def sent(self, beat_id: str, now_s: float) -> None:
        """Note that a beat was published."""
        self._sent_at[beat_id] = now_s
        self.patients[self.truths[beat_id].patient].sent += 1

    def scored(self, score: Score, now_s: float) -> None:
        """Note a record of the score topic."""
        if score.id in self._scored:
            return
        self._scored.add(score.id)
        truth = self.truths[score.id]
        count = self.patients[truth.patient]
        count.scored += 1
        count.learning += score.baseline in ("none", "learning")
        if score.alert:
            self._alerting.add(score.id)
        if truth.is_normal:
            count.normal_s += truth.rr_s
        else:
            count.abnormal += 1
            count.missed += not score.alert
        self.recent[truth.patient].append((score, truth))
        self.latencies_ms.append((now_s - self._sent_at[score.id]) * 1000)

    def alerted(self, alert: Alert) -> JudgedAlert | None:
        """Note a record of the alert topic and return it with its annotation; None for a repeat."""
        if alert.id in self._alerted:
            return None
        self._alerted.add(alert.id)
        judged = JudgedAlert(alert, self.truths[alert.id])
        count = self.patients[judged.truth.patient]
        if judged.is_right:
            count.right_alerts += 1
        else:
            count.false_alerts += 1
        self.alerts.append(judged)
        return judged

    def refused(self, patient: str) -> None:
        """Note a record of the dead-letter topic."""
        self.patients[patient].refused += 1
