"""`ecgwatch baseline` on a real Kafka, which makes no topic for who asks; the rest: tests/test_baselines.py."""

import pytest

from ecgwatch import cli
from ecgwatch.errors import BrokerError, DataError
from tests import test_baselines as embedded
from tests.integration.conftest import Cluster

pytestmark = pytest.mark.kafka


def test_a_patient_on_the_last_of_six_partitions_is_shown_and_reset(
    kafka: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    topic = kafka.create_topic("baselines", 6, cleanup_policy="compact")
    site = embedded.Site(kafka.brokers, topic)
    monkeypatch.setenv("ECGWATCH_KAFKA_BROKERS", kafka.brokers)
    monkeypatch.setenv("ECGWATCH_TOPICS_BASELINES", topic)
    site.put(5, "a", embedded.saved("a", 1))
    found = site.loaded(0, 5)
    assert embedded.counts(found) == {"a": 1}
    assert cli.main(["baseline", "show", "a"]) == 0
    assert capsys.readouterr().out.startswith("MLII: none, 1 beats")
    assert cli.main(["baseline", "reset", "a"]) == 0
    embedded.until_heard(found, "a")
    assert [(one.partition(), one.value()) for one in site.read(5)][1:] == [(5, None)]
    assert cli.main(["baseline", "show", "a"]) == DataError.exit_code


@pytest.mark.parametrize("action", ["show", "reset"])
def test_a_missing_topic_is_one_line_that_names_the_broker(
    kafka: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], action: str
):
    monkeypatch.setenv("ECGWATCH_KAFKA_BROKERS", kafka.brokers)
    monkeypatch.setenv("ECGWATCH_TOPICS_BASELINES", "nowhere")
    assert cli.main(["baseline", action, "a"]) == BrokerError.exit_code
    said = capsys.readouterr().err
    assert said.startswith("ecgwatch: broker ") and said.count("\n") == 1
