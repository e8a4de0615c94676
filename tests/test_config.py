"""Settings: defaults, file, environment, and what is refused."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ecgwatch import config
from ecgwatch.errors import ConfigError

KEYS = sorted(config.keys())
ids = ".".join


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return file


def toml(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def refusal(tmp_path: Path, text: str) -> str:
    """Load a file that must be refused; return the error without the folder."""
    with pytest.raises(ConfigError) as refused:
        config.load(write(tmp_path, text), {})
    return str(refused.value).replace(f"{tmp_path}/", "")


def other(section: str, key: str) -> Any:
    """Another valid value than the default."""
    chosen = {
        ("kafka", "security_protocol"): "SSL",
        ("kafka", "sasl_mechanism"): "PLAIN",
        ("model", "provider"): "cpu",
        ("logs", "level"): "debug",
    }
    default = config.keys()[section, key]
    if (section, key) in chosen:
        return chosen[section, key]
    if isinstance(default, bool):
        return not default
    return default + 1 if isinstance(default, int | float) else f"{default}x"


def value_of(settings: config.Settings, section: str, key: str) -> Any:
    return getattr(getattr(settings, section), key)


def test_without_file_and_environment_the_defaults_hold():
    assert config.load(None, {}) == config.Settings()


@pytest.mark.parametrize(("section", "key"), KEYS, ids=ids)
def test_a_key_in_the_file_replaces_its_default(tmp_path: Path, section: str, key: str):
    value = other(section, key)
    settings = config.load(write(tmp_path, f"[{section}]\n{key} = {toml(value)}\n"), {})
    assert value_of(settings, section, key) == value != config.keys()[section, key]


@pytest.mark.parametrize(("section", "key"), KEYS, ids=ids)
def test_the_environment_overrides_a_key_of_the_file(tmp_path: Path, section: str, key: str):
    file = write(tmp_path, f"[{section}]\n{key} = {toml(config.keys()[section, key])}\n")
    value = other(section, key)
    settings = config.load(file, {config.variable(section, key): str(value)})
    assert value_of(settings, section, key) == value


@pytest.mark.parametrize(("section", "key"), KEYS, ids=ids)
def test_a_value_of_the_wrong_type_is_refused_with_key_file_and_line(tmp_path: Path, section: str, key: str):
    error = refusal(tmp_path, f"# a comment\n\n[{section}]\n{key} = [1]\n")
    assert error.startswith(f"config.toml:4: [{section}] {key}: Expected ")


@pytest.mark.parametrize(("section", "key"), KEYS, ids=ids)
def test_an_unknown_key_beside_a_known_one_is_refused_with_key_file_and_line(tmp_path: Path, section: str, key: str):
    value = toml(config.keys()[section, key])
    assert refusal(tmp_path, f"[{section}]\n{key} = {value}\n{key}_ = {value}\n") == (
        f"config.toml:3: [{section}] {key}_: unknown key"
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[kafk]\n", "config.toml:1: [kafk]: unknown section"),
        ('\nbrokers = "a:1"\n[kafka]\n', "config.toml:2: [brokers]: unknown section"),
        ("kafka = 3\n", "config.toml:1: [kafka]: Expected a table, got `int`"),
        ("[[kafka]]\n", "config.toml:1: [kafka]: Expected a table, got `array`"),
        ("\nkafka.brokers = 3\n", "config.toml:2: [kafka] brokers: Expected `str`, got `int`"),
        ('[kafka]\n"brokers" = 3\n', "config.toml:2: [kafka] brokers: Expected `str`, got `int`"),
        ('[kafka]\nbrokers = ""\n', "config.toml:2: [kafka] brokers: Expected `str` of length >= 1"),
        ('[topics]\nalerts = ""\n', "config.toml:2: [topics] alerts: Expected `str` of length >= 1"),
        ('[model]\nprovider = "tpu"\n', "config.toml:2: [model] provider: Invalid enum value 'tpu'"),
        ("[worker]\nmax_batch = 0\n", "config.toml:2: [worker] max_batch: Expected `int` >= 1"),
        ("[worker]\nmax_batch = true\n", "config.toml:2: [worker] max_batch: Expected `int`, got `bool`"),
        ("[kafka]\nheartbeat_s = 0\n", "config.toml:2: [kafka] heartbeat_s: Expected `float` > 0.0"),
        ("[kafka]\nheartbeat_s = inf\n", "config.toml:2: [kafka] heartbeat_s: Expected `float` <= 86400.0"),
        (
            "[alerts]\nfalse_alerts_per_hour = nan\n",
            "config.toml:2: [alerts] false_alerts_per_hour: Expected `float` > 0.0",
        ),
        (
            "[kafka\n",
            "config.toml: not valid TOML: Expected ']' at the end of a table declaration (at line 1, column 7)",
        ),
        ("[kafka]\n[kafka]\n", "config.toml: not valid TOML: Cannot declare ('kafka',) twice (at line 2, column 7)"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(tmp_path: Path, text: str, error: str):
    assert refusal(tmp_path, text) == error


def test_a_key_is_looked_for_in_its_own_section(tmp_path: Path):
    text = '[topics]\nalerts = "a"\n[alerts]\nfalse_alerts_per_hour = 1.0\n[worker]\n[topics.more]\nalerts = 3\n'
    assert refusal(tmp_path, text) == "config.toml:6: [topics] more: unknown key"


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        config.load(tmp_path / "none.toml", {})


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path):
    file = tmp_path / "config.toml"
    file.write_bytes(b'[kafka]\nclient_id = "\xff"\n')
    with pytest.raises(ConfigError, match="not valid TOML"):
        config.load(file, {})


@pytest.mark.parametrize(("key", "name"), config.SECRETS.items())
def test_a_secret_in_the_file_is_refused_without_being_repeated(tmp_path: Path, key: str, name: str):
    error = refusal(tmp_path, f'[kafka]\n{key} = "hunter2"\n')
    assert error == f"config.toml:2: [kafka] {key}: secrets come from the environment only: {name}"


@pytest.mark.parametrize(("key", "name"), config.SECRETS.items())
def test_a_secret_comes_from_the_environment(key: str, name: str):
    assert (config.secret(key, {name: "hunter2"}), config.secret(key, {})) == ("hunter2", None)


def test_a_secret_in_the_environment_is_no_unknown_setting():
    assert config.load(None, dict.fromkeys(config.SECRETS.values(), "hunter2")) == config.Settings()


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("ECGWATCH_KAFKA_BROKER", "a:1", "no such setting"),
        ("ECGWATCH_KAFKAA_BROKERS", "a:1", "no such setting"),
        ("ECGWATCH_TOPIC_BEATS", "x", "no such setting"),
        ("ECGWATCH_BROKERS", "a:1", "no such setting"),
        ("ECGWATCH_KAFKA_PORT", "9092", "no such setting"),
        ("ECGWATCH_KAFKA_SESSION_TIMEOUT_S", "91", "[kafka] session_timeout_s: Expected `float` <= 90.0"),
        ("ECGWATCH_WORKER_MAX_BATCH", "many", "[worker] max_batch: Expected `int`, got `str`"),
        ("ECGWATCH_WORKER_MAX_BATCH", "1.5", "[worker] max_batch: Expected `int`, got `float`"),
        ("ECGWATCH_WORKER_MAX_BATCH", "0", "[worker] max_batch: Expected `int` >= 1"),
        ("ECGWATCH_TOPICS_CREATE", "yes", "[topics] create: Expected `bool`, got `str`"),
        ("ECGWATCH_LOGS_LEVEL", "loud", "[logs] level: Invalid enum value 'loud'"),
        ("ECGWATCH_KAFKA_BROKERS", "", "[kafka] brokers: Expected `str` of length >= 1"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(name: str, value: str, error: str):
    with pytest.raises(ConfigError) as refused:
        config.load(None, {name: value})
    assert str(refused.value).startswith(f"environment variable {name}: {error}")


def test_variables_of_other_programs_of_tests_and_of_kubernetes_are_left_alone():
    names = ["PATH", "ECGWATCH_TEST_KAFKA"]
    for service in ("ECGWATCH", "ECGWATCH_KAFKA", "ECGWATCH_PROD_METRICS"):
        names += [f"{service}_{name}" for name in ("SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT_80_TCP_ADDR")]
        names += [f"{service}_PORT"]
    assert config.load(None, dict.fromkeys(names, "tcp://10.0.0.1:80")) == config.Settings()


TOPICS = ["beats", "scores", "alerts", "dead_letters", "baselines"]


@pytest.mark.parametrize(("one", "other"), list(combinations(TOPICS, 2)))
def test_two_topics_of_one_name_are_refused_by_both_keys(one: str, other: str):
    with pytest.raises(ConfigError) as refused:
        config.load(None, {config.variable("topics", key): "same" for key in (one, other)})
    assert str(refused.value) == f"[topics] {one} and {other} are both same: each needs a topic of its own"


def test_a_topic_named_as_another_s_default_is_refused(tmp_path: Path):
    error = refusal(tmp_path, '[topics]\ndead_letters = "ecg-beats"\n')
    assert error == "[topics] beats and dead_letters are both ecg-beats: each needs a topic of its own"


def test_a_session_shorter_than_three_heartbeats_is_refused_by_both_keys(tmp_path: Path):
    error = refusal(tmp_path, "[kafka]\nsession_timeout_s = 5.9\n")
    assert error == (
        "[kafka] heartbeat_s = 2 is too long beside session_timeout_s = 5.9: 3 heartbeats must fit into a session"
    )


def test_a_session_of_just_three_heartbeats_is_taken(tmp_path: Path):
    file = write(tmp_path, "[kafka]\nsession_timeout_s = 0.3\nheartbeat_s = 0.1\n")
    assert config.load(file, {}).kafka.session_timeout_s == 0.3


@pytest.mark.parametrize("text", ["true", "True", "TRUE"])
def test_a_boolean_variable_may_be_written_in_any_case(text: str):
    assert config.load(None, {"ECGWATCH_TOPICS_CREATE": text}).topics.create
