"""TLS, passwords and ACLs on a real Kafka."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation, ResourceType

from tests.integration.kafka_server import Kafka, make_certificates
from tests.integration.traffic import Site, until

pytestmark = pytest.mark.kafka
PASSWORDS = {"worker": "of-the-worker", "stranger": "of-nobody"}


@pytest.fixture(scope="module")
def secured(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    broker = Kafka(tmp_path_factory.mktemp("secured"), PASSWORDS).start()
    yield broker
    broker.kill()


@pytest.fixture
def ward(secured: Kafka, tmp_path: Path) -> Iterator[Site]:
    with Site(secured.brokers, tmp_path) as site:
        yield site


def secure(broker: Kafka, user: str = "worker", password: str | None = None, ca: Path | None = None) -> dict[str, str]:
    return {
        "kafka_brokers": broker.secure_brokers,
        "kafka_security_protocol": "SASL_SSL",
        "kafka_ssl_cafile": str(ca or broker.ca),
        "kafka_sasl_username": user,
        "kafka_sasl_password": password or PASSWORDS[user],
    }


def allow(broker: Kafka, site: Site) -> None:
    """The ACLs that the documentation asks for, no more."""
    broker.allow("worker", ResourceType.TOPIC, site.beats, [AclOperation.READ])
    broker.allow("worker", ResourceType.GROUP, site.group, [AclOperation.READ])
    for topic in (site.scores, site.alerts, site.dead_letters):
        broker.allow("worker", ResourceType.TOPIC, topic, [AclOperation.WRITE])


def test_a_worker_with_a_password_over_tls_and_minimal_acls_scores_and_is_healthy(secured: Kafka, ward: Site):
    allow(secured, ward)
    worker = ward.worker(**secure(secured)).ready()
    sender = ward.sender()
    sender.send(50)
    until(lambda: len(ward.scored()) == 50, 10, "all beats are scored")
    assert worker.stop()[0] == 0
    assert PASSWORDS["worker"] not in worker.log


def test_check_works_with_the_worker_s_own_rights(secured: Kafka, ward: Site):
    allow(secured, ward)
    ward.worker(**secure(secured)).ready()
    done = ward.check(**secure(secured))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_wrong_password_is_one_line_that_names_user_and_variable_and_77(secured: Kafka, ward: Site):
    worker = ward.worker(**secure(secured, password="wrong"))
    assert worker.exit_code() == 77
    assert worker.log == (
        f"ecgwatch: broker {secured.secure_brokers} refused user worker (SCRAM-SHA-512): "
        "see [kafka] sasl_username and ECGWATCH_KAFKA_SASL_PASSWORD\n"
    )


def test_a_wrong_ca_is_one_line_and_77(secured: Kafka, ward: Site, tmp_path: Path):
    other = Kafka(tmp_path / "other", PASSWORDS)
    other.folder.mkdir()
    make_certificates(other.folder)
    worker = ward.worker(**secure(secured, ca=other.ca))
    assert worker.exit_code() == 77
    assert worker.log.startswith(f"ecgwatch: TLS with broker {secured.secure_brokers} failed: ")
    assert worker.log.endswith("see [kafka] ssl_cafile\n")
    assert worker.log.count("\n") == 1


def test_a_user_without_rights_on_the_topics_is_one_line(secured: Kafka, ward: Site):
    worker = ward.worker(**secure(secured, "stranger"))
    assert worker.exit_code() in (69, 77)  # Kafka hides topics from whom it does not allow to describe them
    assert worker.log.count("\n") == 1


def test_a_missing_right_to_write_is_said_before_anything_is_scored(secured: Kafka, ward: Site):
    allow(secured, ward)
    beats_only = ward.beats
    worker = ward.worker(**secure(secured), topics_alerts=beats_only)
    assert worker.exit_code() == 77
    assert worker.log == f"ecgwatch: user worker may not write topic {beats_only}: it needs an ACL\n"


def test_a_missing_right_to_the_group_is_one_line_and_77(secured: Kafka, ward: Site):
    allow(secured, ward)
    worker = ward.worker(**secure(secured), kafka_group="of-others")
    assert worker.exit_code() == 77
    assert worker.log.count("\n") == 1


def test_a_ca_file_that_is_missing_is_one_line_and_78(secured: Kafka, ward: Site, tmp_path: Path):
    worker = ward.worker(**secure(secured, ca=tmp_path / "none.pem"))
    assert worker.exit_code() == 78
    assert worker.log == f"ecgwatch: [kafka] ssl_cafile = {tmp_path / 'none.pem'}: No such file or directory\n"
