"""config.toml and the environment -> frozen settings; the only place where defaults stand.

Order: the defaults below, then the file, then the environment (`ECGWATCH_<SECTION>_<KEY>`, for example
ECGWATCH_KAFKA_BROKERS). Secrets (`SECRETS`) come from the environment only. A wrong or unknown key is a ConfigError
that names key, file and line; keys that do not go together are one that names both.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ecgwatch.errors import ConfigError

Name = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Count = Annotated[int, Meta(ge=1)]

SECRETS = {
    "sasl_password": "ECGWATCH_KAFKA_SASL_PASSWORD",
    "ssl_key_password": "ECGWATCH_KAFKA_SSL_KEY_PASSWORD",
}

# Faust demands that a request may take as long as a session; the worker gives it this much
SESSION_MAX_S = 90.0
HEARTBEATS = 3  # of a session, at least
# No settings: what the tests read, and what Kubernetes puts into every pod of a namespace with a Service that is called
# ecgwatch, or ecgwatch-and-something
_NOT_OURS = re.compile(
    r"ECGWATCH_(TEST_\w+=.*|(\w+_)?((SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)=.*|PORT=\w+://.*))",
    re.DOTALL,
)


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Kafka(_Section, frozen=True):
    """The cluster, and how this program joins it; times in seconds."""

    brokers: Name = "localhost:9092"
    group: Name = "ecgwatch"
    client_id: Name = "ecgwatch"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    session_timeout_s: Annotated[float, Meta(gt=0, le=SESSION_MAX_S)] = 10.0
    heartbeat_s: Seconds = 2.0
    start_timeout_s: Seconds = 60.0


class Topics(_Section, frozen=True):
    """The names of the topics, and how they are created where they are missing."""

    beats: Name = "ecg-beats"
    scores: str = ""
    alerts: Name = "ecg-alerts"
    dead_letters: Name = "ecg-dead-letters"
    baselines: Name = "ecg-baselines"
    create: bool = False
    partitions: Count = 6
    replication: Count = 3


class Model(_Section, frozen=True):
    """The bundle, and what computes it."""

    bundle: str = "default"
    provider: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Meta(ge=0)] = 1


class Alerts(_Section, frozen=True):
    """The rate that the alert threshold is chosen by: false alerts per hour of normal rhythm."""

    false_alerts_per_hour: Annotated[float, Meta(gt=0)] = 10.0


class Worker(_Section, frozen=True):
    """Bounds of the worker: beats in a batch, messages in memory, seconds."""

    max_batch: Count = 256
    max_waiting: Count = 4096
    stuck_after_s: Seconds = 60.0
    stop_timeout_s: Seconds = 5.0


class Logs(_Section, frozen=True):
    """How much is logged, and whether it may name patients."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    identities: bool = False


class Data(_Section, frozen=True):
    """Where training and benchmarks look for data sets."""

    directory: str = "data"


class Settings(_Section, frozen=True):
    """All settings; each section is a table of config.toml."""

    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    model: Model = Model()
    alerts: Alerts = Alerts()
    worker: Worker = Worker()
    logs: Logs = Logs()
    data: Data = Data()


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read settings from `path` (none: the defaults) and the environment.

    Raises ConfigError for a file that cannot be read, is no TOML, or holds a wrong or unknown key; for an unknown
    ECGWATCH_ variable; for keys that do not go together.
    """
    text = ""
    tables: dict[str, Any] = {}
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
            tables = tomllib.loads(text)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not valid TOML: {error}") from None
        _refuse_secrets(tables, path, text)
    settings = _convert(tables, lambda section, key: f"{path}:{_line_of(text, section, key)}")
    settings = _with_environment(settings, environ)
    _check_together(settings)
    return settings


def secret(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return a secret (a key of SECRETS) from the environment, None where it is not set."""
    return environ.get(SECRETS[name]) or None


def variable(section: str, key: str) -> str:
    """Return the environment variable that overrides a key."""
    return f"ECGWATCH_{section}_{key}".upper()


def keys() -> dict[tuple[str, str], Any]:
    """Return every (section, key) with its default."""
    defaults = msgspec.to_builtins(Settings())
    return {(section, key): value for section, table in defaults.items() for key, value in table.items()}


def _convert(tables: dict[str, Any], where: Any) -> Settings:
    try:
        return msgspec.convert(tables, Settings)
    except msgspec.ValidationError as error:
        text = str(error)
    unknown = re.search(r"unknown field `([^`]*)`", text)
    path = re.search(r"at `\$((?:\.[^`]*)?)`", text)
    parts = [p for p in (path.group(1) if path else "").split(".") if p]
    if unknown:
        parts.append(unknown.group(1))
        text = "unknown key" if len(parts) > 1 else "unknown section"
    section, key = [*parts, "", ""][:2]
    name = f"[{section}] {key}".rstrip()
    problem = text.split(" - at ")[0].replace("`object`", "a table")  # TOML's word for it
    raise ConfigError(f"{where(section, key)}: {name}: {problem}") from None


def _with_environment(settings: Settings, environ: Mapping[str, str]) -> Settings:
    tables = msgspec.to_builtins(settings)
    known = {variable(section, key): (section, key) for section, key in keys()}
    for name in sorted(environ):
        if (
            not name.startswith("ECGWATCH_")
            or name in SECRETS.values()
            or _NOT_OURS.fullmatch(f"{name}={environ[name]}")
        ):
            continue
        if name not in known:
            raise ConfigError(f"environment variable {name}: no such setting; config.toml lists them all")
        section, key = known[name]
        tables[section][key] = _from_text(environ[name], tables[section][key])
    return _convert(tables, lambda section, key: f"environment variable {variable(section, key)}")


def _check_together(settings: Settings) -> None:
    """Raise ConfigError for keys each of which is right, but not beside the other."""
    kafka, topics = settings.kafka, settings.topics
    if kafka.session_timeout_s < HEARTBEATS * kafka.heartbeat_s * (1 - 1e-9):  # 3 * 0.1 is more than 0.3
        raise ConfigError(
            f"[kafka] heartbeat_s = {kafka.heartbeat_s:g} is too long beside session_timeout_s = "
            f"{kafka.session_timeout_s:g}: {HEARTBEATS} heartbeats must fit into a session"
        )
    names = {"beats": topics.beats, "scores": topics.scores, "alerts": topics.alerts}
    names |= {"dead_letters": topics.dead_letters, "baselines": topics.baselines}
    first: dict[str, str] = {}
    for key, name in names.items():
        if name and (other := first.setdefault(name, key)) != key:
            raise ConfigError(f"[topics] {other} and {key} are both {name}: each needs a topic of its own")


def _from_text(text: str, default: Any) -> Any:
    """A number or boolean where the default is one; text that is neither stays text, and `_convert` refuses it."""
    if isinstance(default, str):
        return text
    try:
        return msgspec.json.decode(text.lower())
    except msgspec.DecodeError:
        return text


def _refuse_secrets(tables: dict[str, Any], path: Path, text: str) -> None:
    kafka = tables.get("kafka")
    for key, name in SECRETS.items():
        if isinstance(kafka, dict) and key in kafka:
            where = f"{path}:{_line_of(text, 'kafka', key)}: [kafka] {key}"
            raise ConfigError(f"{where}: secrets come from the environment only: {name}")


def _line_of(text: str, section: str, key: str) -> int:
    """Find the line of a key for an error message; 1 where it is written in a way this does not see (inline tables)."""
    here, found = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([\w.-]+)\s*\]", line):
            here = header.group(1)
            if here == f"{section}.{key}":
                return number
            if here == section:
                found = number
        elif not here and re.match(rf"\s*{re.escape(section)}(\s*\.\s*{re.escape(key)})?\s*=", line):
            return number  # no table: `kafka = 3`, `kafka.brokers = ...`, or a key that stands above all sections
        elif here == section and key and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return found
