"""What is missing before work begins; refusals of a real broker: tests/integration/test_security.py and others."""

import pytest

from ecgwatch import cluster
from ecgwatch.broker import embedded_broker
from ecgwatch.config import Kafka, Settings, Topics
from ecgwatch.errors import BrokerError


def test_waiting_for_a_broker_that_is_not_there_ends_with_one_line_that_names_it():
    with pytest.raises(BrokerError, match=r"no broker at 127\.0\.0\.1:9 within 0\.5 s \(.+\); see \[kafka\] brokers"):
        cluster.wait_for_broker(Settings(kafka=Kafka(brokers="127.0.0.1:9", start_timeout_s=0.5)))


def test_waiting_for_a_broker_ends_when_the_worker_is_to_stop():
    cluster.wait_for_broker(Settings(kafka=Kafka(brokers="127.0.0.1:9")), stopped=lambda: True)


def test_a_missing_topic_is_named():
    with embedded_broker(["beats", "alerts"]) as address:
        topics = Topics(beats="beats", alerts="alerts", dead_letters="nowhere")
        with pytest.raises(BrokerError, match=f"no topic nowhere on {address}: create it, or set"):
            cluster.require_topics(Settings(kafka=Kafka(brokers=address), topics=topics), baselines=False)
