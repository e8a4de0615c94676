"""TLS, SCRAM and the ACLs of docs/security.md on a real Kafka, and what is said where one of them is wrong."""

import math
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AclOperation, ResourceType

from ecgwatch import clients, config, messages
from ecgwatch.errors import AccessError
from tests.integration.kafka_server import Kafka, make_certificates
from tests.integration.traffic import Site, Worker
from tests.wfdb_records import excerpt, write_record

pytestmark = pytest.mark.kafka

PAGE = Path(__file__).parent.parent.parent / "docs" / "security.md"
USERS = {"ward": "correct-horse", "stranger": "battery-staple"}
OPERATIONS = {"Read": AclOperation.READ, "Write": AclOperation.WRITE, "Describe": AclOperation.DESCRIBE}
REFUSED = 77

Acl = tuple[str, str, str]  # operation, topic or group, which one


def documented(who: str) -> list[Acl]:
    """Somebody's rows in the table of docs/security.md: | worker | `Read` | topic | `topics.beats` | ..."""
    row = rf"^\| {re.escape(who)} \| `(\w+)` \| (topic|group) \| `([\w.]+)`"
    return re.findall(row, PAGE.read_text(), re.MULTILINE)


ACLS = documented("worker")
OF_CHECK = documented("operator, `ecgwatch check`")
STUCK = 75


def name_of(site: Site, setting: str) -> str:
    """What a setting of docs/security.md is called on this site."""
    return site.group if setting == "kafka.group" else getattr(site, setting.removeprefix("topics."))


def allow(broker: Kafka, site: Site, acls: list[Acl], user: str = "ward") -> None:
    for operation, kind, setting in acls:
        resource = ResourceType.TOPIC if kind == "topic" else ResourceType.GROUP
        broker.allow(user, resource, name_of(site, setting), [OPERATIONS[operation]])


@pytest.fixture(scope="module")
def broker(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    broker = Kafka(tmp_path_factory.mktemp("secure"), USERS).start()
    yield broker
    broker.kill()


@pytest.fixture
def secure(broker: Kafka, tmp_path: Path) -> Iterator[Site]:
    """A site without any ACL yet; beats are sent through the plain listener of the super user."""
    with Site(broker.brokers, tmp_path) as site:
        yield site


def access(broker: Kafka, user: str = "ward") -> dict[str, str]:
    """The settings of a user of the encrypted listener."""
    return {
        "kafka_brokers": broker.secure_brokers,
        "kafka_security_protocol": "SASL_SSL",
        "kafka_ssl_cafile": str(broker.ca),
        "kafka_sasl_username": user,
        "kafka_sasl_password": USERS[user],
    }


def worker(broker: Kafka, site: Site, user: str = "ward", **settings: str) -> Worker:
    return site.worker(**(access(broker, user) | settings))


def last_words(stopped: Worker) -> tuple[int, str]:
    """The exit code, and the one line that the command ends with."""
    code = stopped.exit_code(30)
    lines = [line for line in stopped.log.splitlines() if line.startswith("ecgwatch: ")]
    assert "Traceback" not in stopped.log
    assert len(lines) == 1, stopped.log
    return code, lines[0]


def test_the_page_lists_seven_acls_for_the_worker():
    assert len(ACLS) == 7


def test_a_worker_with_only_the_documented_acls_scores_and_stops_cleanly(broker: Kafka, secure: Site):
    allow(broker, secure, ACLS)
    running = worker(broker, secure).ready()
    sender = secure.sender()
    sender.send(100)
    secure.all_committed()
    assert sorted(secure.scored()) == sorted(sender.ids)
    assert running.stop()[0] == 0


@pytest.mark.parametrize(("user", "its"), [("ward", ACLS), ("stranger", OF_CHECK)], ids=["the worker's", "its own"])
def test_check_needs_no_more_than_the_worker_s_acls_or_its_own(broker: Kafka, secure: Site, user: str, its: list[Acl]):
    allow(broker, secure, ACLS)
    allow(broker, secure, its, user)
    running = worker(broker, secure).ready()
    done = secure.check(**access(broker, user))
    assert (done.returncode, done.stderr) == (0, "")
    running.send(signal.SIGSTOP)
    secure.sender().send(20)
    assert secure.check(**access(broker, user)).returncode == STUCK  # it saw the records that wait


@pytest.mark.parametrize("missing", ACLS, ids=" ".join)
def test_without_one_of_the_acls_the_worker_says_which_and_exits_77(broker: Kafka, secure: Site, missing: Acl):
    allow(broker, secure, [acl for acl in ACLS if acl != missing])
    code, line = last_words(worker(broker, secure))
    assert code == REFUSED
    assert name_of(secure, missing[2]) in line
    assert "ACL" in line


@pytest.mark.parametrize("taken", ACLS[:3], ids=" ".join)
def test_an_acl_taken_from_a_running_worker_ends_it_with_77_and_what_it_lacks(broker: Kafka, secure: Site, taken: Acl):
    allow(broker, secure, ACLS)
    running = worker(broker, secure).ready()
    operation, kind, setting = taken
    resource = ResourceType.TOPIC if kind == "topic" else ResourceType.GROUP
    broker.disallow("ward", resource, name_of(secure, setting), OPERATIONS[operation])
    secure.sender().send(20)
    code, line = last_words(running)
    assert code == REFUSED
    assert name_of(secure, setting) in line
    assert "ward" in line
    assert not secure.scored()


def test_a_user_who_is_removed_ends_the_running_worker_which_says_so_and_not_that_the_broker_is_away(
    kafka_jars: Path, tmp_path: Path
):
    # its own: once a user was removed, Kafka 4.1 knew none of the others either after a restart
    broker = Kafka(tmp_path / "kafka", USERS).start()
    try:
        with Site(broker.brokers, tmp_path) as site:
            allow(broker, site, ACLS)
            running = worker(broker, site, worker_stuck_after_s="5").ready()
            broker.remove_user("ward")
            broker.stop()  # it asks for the password when a connection begins
            broker.start()
            assert running.exit_code(40) == REFUSED
    finally:
        broker.kill()
    assert "refused user ward" in running.log
    last = running.log.splitlines()[-1]
    assert "still so after" in last
    assert "ECGWATCH_KAFKA_SASL_PASSWORD" in last


def test_check_says_that_the_password_is_wrong(broker: Kafka, secure: Site):
    done = secure.check(**access(broker) | {"kafka_sasl_password": "hunter2"})
    assert done.returncode == REFUSED
    assert done.stderr.count("\n") == 1
    assert "refused user ward" in done.stderr


def test_a_wrong_password_is_one_line_and_exit_77(broker: Kafka, secure: Site):
    allow(broker, secure, ACLS)
    code, line = last_words(worker(broker, secure, kafka_sasl_password="hunter2"))
    assert code == REFUSED
    assert "ward" in line
    assert "ECGWATCH_KAFKA_SASL_PASSWORD" in line
    assert "hunter2" not in line


def test_an_unknown_user_is_one_line_and_exit_77(broker: Kafka, secure: Site):
    code, line = last_words(worker(broker, secure, kafka_sasl_username="nobody"))
    assert code == REFUSED
    assert "nobody" in line


def test_a_wrong_ca_is_one_line_and_exit_77(broker: Kafka, secure: Site, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    make_certificates(other)
    code, line = last_words(worker(broker, secure, kafka_ssl_cafile=str(other / "ca.pem")))
    assert code == REFUSED
    assert "ssl_cafile" in line


def test_without_a_password_the_worker_names_the_variable(broker: Kafka, secure: Site):
    code, line = last_words(worker(broker, secure, kafka_sasl_password=""))
    assert code == 78
    assert "ECGWATCH_KAFKA_SASL_PASSWORD" in line


def test_the_clients_need_no_more_than_their_own_acl(
    broker: Kafka, secure: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    broker.allow("stranger", ResourceType.TOPIC, secure.alerts, [AclOperation.READ])
    broker.allow("stranger", ResourceType.TOPIC, secure.beats, [AclOperation.WRITE])
    monkeypatch.setenv("ECGWATCH_KAFKA_SASL_PASSWORD", USERS["stranger"])
    kafka = config.Kafka(
        brokers=broker.secure_brokers,
        security_protocol="SASL_SSL",
        ssl_cafile=str(broker.ca),
        sasl_username="stranger",
    )
    settings = config.Settings(kafka=kafka, topics=config.Topics(beats=secure.beats, alerts=secure.alerts))
    record = write_record(tmp_path, excerpt(seconds=5))
    assert clients.replay(settings, record, speed=math.inf) == len(secure.read(secure.beats)) > 0
    alert = messages.Alert(1, "p/MLII/1", "p", "MLII", 1, 4.0, 3.0, 0.1, 9.0, "map distance", "ab")
    producer = Producer({"bootstrap.servers": broker.brokers})
    producer.produce(secure.alerts, value=messages.encode(alert))
    producer.flush()
    followed = clients.alerts(settings, from_beginning=True)
    assert next(followed) == alert
    followed.close()  # type: ignore[attr-defined]


def test_a_client_with_a_wrong_password_is_refused(broker: Kafka, secure: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ECGWATCH_KAFKA_SASL_PASSWORD", "hunter2")
    kafka = config.Kafka(
        brokers=broker.secure_brokers, security_protocol="SASL_SSL", ssl_cafile=str(broker.ca), sasl_username="ward"
    )
    with pytest.raises(AccessError, match="refused user ward"):
        next(clients.alerts(config.Settings(kafka=kafka)))
