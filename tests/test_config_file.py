"""config.toml is the one list of settings."""

import re
import tomllib
from pathlib import Path

from ecgwatch import config

FILE = Path(__file__).parent.parent / "config.toml"


def test_lists_exactly_the_settings_with_their_defaults():
    tables = tomllib.loads(FILE.read_text())
    listed = {(section, key): value for section, table in tables.items() for key, value in table.items()}
    assert listed == config.keys()


def test_is_read_as_the_defaults():
    assert config.load(FILE, environ={}) == config.Settings()


def test_names_the_environment_variable_of_every_key_on_its_line():
    section = ""
    for line in FILE.read_text().splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            section = header.group(1)
        elif setting := re.match(r"(\w+) = .*# (\S+)$", line):
            assert setting.group(2) == config.variable(section, setting.group(1))
        else:
            assert not line or line.startswith("#"), f"no variable named on: {line}"


def test_names_the_variable_of_every_secret():
    text = FILE.read_text()
    assert [name for name in config.SECRETS.values() if name not in text] == []
