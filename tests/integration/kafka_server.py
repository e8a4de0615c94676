"""A real Apache Kafka (one node, KRaft) as a child process, from jars that Maven resolves once.

Needs Java 17 or later and, the first time, Maven. Everything a broker writes stays in one folder; its ports stay the
same over `kill` and `start`, so that clients meet the same cluster again.
"""

import base64
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramMechanism,
    UserScramCredentialDeletion,
)

HERE = Path(__file__).parent
POM = HERE / "pom.xml"
LIBS = HERE / "libs"
# Java's quick compiler and collector: a broker that lives for seconds starts in half the time
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
STORE_PASSWORD = "of-a-test-broker"


class Unavailable(Exception):
    """No Kafka can be started on this machine; the text says what is missing."""


class StartError(Exception):
    """Kafka was started and did not come up; the text holds the end of its log."""


def jars() -> Path:
    """Return the folder of Kafka's jars; Maven fills it the first time and after a change of pom.xml.

    Raises Unavailable where Java or Maven is missing or Maven cannot resolve.
    """
    if not shutil.which("java"):
        raise Unavailable("no Kafka to test with: set ECGWATCH_TEST_KAFKA=host:port, or install Java 17 and Maven")
    complete = LIBS / "resolved-from.xml"
    if complete.exists() and complete.read_text() == POM.read_text():
        return LIBS
    if not shutil.which("mvn"):
        raise Unavailable("no Kafka to test with: set ECGWATCH_TEST_KAFKA=host:port, or install Maven (Java is here)")
    shutil.rmtree(LIBS, ignore_errors=True)
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={LIBS}", "-DincludeScope=runtime"]
    maven = subprocess.run(["mvn", "-q", "-B", "-f", str(POM), *goal], capture_output=True, text=True)
    if maven.returncode:
        raise Unavailable(f"no Kafka to test with: Maven could not resolve it: {(maven.stdout + maven.stderr)[:300]}")
    complete.write_text(POM.read_text())
    return LIBS


@dataclass
class Kafka:
    """One broker: `start`, `stop`, `kill` and again `start`, on the same ports and data.

    folder: configuration, data and log. users: SCRAM-SHA-512 users with their passwords; with any, a SASL_SSL listener
    (`secure_brokers`, `ca`) and ACLs are on; the plain listener then belongs to an anonymous super user.
    settings: more lines for server.properties. java_options: () for a broker whose speed matters.
    """

    folder: Path
    users: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    java_options: Sequence[str] = QUICK_START

    def __post_init__(self) -> None:
        self._ports = free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def brokers(self) -> str:
        """The plain listener."""
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def secure_brokers(self) -> str:
        """The SASL_SSL listener; by name, as the certificate says."""
        return f"localhost:{self._ports[2]}"

    @property
    def ca(self) -> Path:
        """The certificate that signed the broker's, PEM."""
        return self.folder / "ca.pem"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def log(self) -> Path:
        return self.folder / "broker.log"

    def start(self) -> "Kafka":
        """Start and return when the broker answers; format the storage the first time."""
        if not (self.folder / "server.properties").exists():
            self._format()
        with self.log.open("ab") as log:
            command = [*self._java(), "-Xmx512m", "kafka.Kafka", str(self.folder / "server.properties")]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        self._wait_until_it_answers()
        return self

    def stop(self) -> None:
        """Stop in good order (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill without a chance to tidy up (SIGKILL)."""
        self._end(signal.SIGKILL)

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.brokers, "log_level": 2})

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> str:
        """Create a topic and return its name when the broker knows it."""
        return create_topic(self.brokers, name, partitions, **config)

    def allow(self, user: str, resource: ResourceType, name: str, operations: Sequence[AclOperation]) -> None:
        """Allow a user literally these operations on one topic or group."""
        rules = [
            AclBinding(
                resource, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW
            )
            for operation in operations
        ]
        admin = self.admin()  # held: its requests end with it
        for future in admin.create_acls(rules).values():
            future.result(timeout=START_TIMEOUT_S)

    def disallow(self, user: str, resource: ResourceType, name: str, operation: AclOperation) -> None:
        """Take away what `allow` allowed."""
        rule = AclBindingFilter(
            resource, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW
        )
        admin = self.admin()
        for future in admin.delete_acls([rule]).values():
            assert future.result(timeout=START_TIMEOUT_S), "there was no such rule"

    def remove_user(self, user: str) -> None:
        """Remove a user's password; connections that there are stay."""
        admin = self.admin()
        gone = UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512)
        for future in admin.alter_user_scram_credentials([gone]).values():
            future.result(timeout=START_TIMEOUT_S)

    def _java(self) -> list[str]:
        return ["java", *self.java_options, "-cp", f"{jars()}/*"]

    def _format(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.users:
            make_certificates(self.folder)
        lines = (f"{key}={value}" for key, value in self._properties().items())
        properties = self.folder / "server.properties"
        properties.write_text("\n".join(lines) + "\n")
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        scram = [f"SCRAM-SHA-512=[name={user},password={password}]" for user, password in self.users.items()]
        options = [argument for user in scram for argument in ("--add-scram", user)]
        identity = f"--cluster-id={cluster}"  # one argument: one in 64 begins with a dash
        command = [*self._java(), "kafka.tools.StorageTool", "format", identity, "-c", str(properties), *options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            properties.unlink()
            raise StartError(f"Kafka's storage could not be formatted: {done.stdout[-1000:]}{done.stderr[-1000:]}")

    def _properties(self) -> dict[str, str]:
        plain, controller, secure = self._ports
        listeners = f"PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller}"
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": listeners,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL",
            "log.dirs": str(self.folder / "data"),
            "auto.create.topics.enable": "false",  # a missing topic must be an error, as on a well-kept cluster
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",  # one coordinator: when it answers, it does for every group
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
        }
        if self.users:
            properties |= {
                "listeners": f"{listeners},SASL_SSL://localhost:{secure}",
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
                "ssl.keystore.location": str(self.folder / "server.p12"),
                "ssl.keystore.type": "PKCS12",
                "ssl.keystore.password": STORE_PASSWORD,
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            }
        return properties | self.settings

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self._ports[0]), 1).close()
                self._ask_the_coordinator()
                return
            except (OSError, KafkaException):
                time.sleep(0.1)
        self.kill()
        raise StartError(f"Kafka did not answer; the end of {self.log}: {self.log.read_text()[-1500:]}")

    def _ask_the_coordinator(self) -> None:
        """Its first question makes a new broker create the offsets topic, and its answers are errors until then."""
        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": "anybody", "log_level": 2})
        try:
            consumer.committed([TopicPartition("anything", 0)], timeout=2)
        finally:
            consumer.close()

    def _end(self, signal_number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal_number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def create_topic(brokers: str, name: str, partitions: int = 1, **config: str) -> str:
    """Create a topic on any cluster (keys of `config` with _ for .) and return its name when it can be used."""
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 2})
    options = {key.replace("_", "."): value for key, value in config.items()}
    for future in admin.create_topics([NewTopic(name, partitions, 1, config=options)]).values():
        future.result(timeout=START_TIMEOUT_S)
    deadline = time.monotonic() + START_TIMEOUT_S
    while len(admin.list_topics(name, timeout=START_TIMEOUT_S).topics[name].partitions) < partitions:
        assert time.monotonic() < deadline, f"topic {name} was created and did not appear"
        time.sleep(0.02)
    return name


def free_ports(count: int) -> list[int]:
    """Find TCP ports that nobody uses now.

    Below the range from which the system gives out client ports: while a broker is down, a client that tries its port
    again and again must neither be given that port nor connect to itself.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return found


def make_certificates(folder: Path) -> None:
    """Make a CA (`ca.pem`) and a certificate for localhost signed by it (`server.p12`), with Java's own keytool."""
    store = ["-keystore", str(folder / "server.p12"), "-storetype", "PKCS12", "-storepass", STORE_PASSWORD]
    made = ["-keyalg", "RSA", "-keysize", "2048", "-validity", "2"]
    names = "san=dns:localhost,ip:127.0.0.1"
    _keytool("-genkeypair", "-alias", "ca", "-dname", "CN=test CA", "-ext", "bc:critical=ca:true", *made, *store)
    _keytool("-exportcert", "-rfc", "-alias", "ca", "-file", str(folder / "ca.pem"), *store)
    _keytool("-genkeypair", "-alias", "broker", "-signer", "ca", "-dname", "CN=localhost", "-ext", names, *made, *store)
    _keytool("-delete", "-alias", "ca", *store)


def _keytool(*arguments: str) -> None:
    subprocess.run(["keytool", *arguments], check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"})
