"""The command line, called as a function."""

import json
import math
import subprocess
import sys

import pytest

from ecgwatch import cli

COMMANDS = ["worker", "check", "demo", "replay", "alerts", "score", "train", "schemas"]


def run_help(capsys, *argv):
    with pytest.raises(SystemExit) as exit_:
        cli.main([*argv, "--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_command(capsys):
    text = run_help(capsys)
    assert [name for name in [*COMMANDS, "bundle"] if f"\n    {name} " not in text] == []


@pytest.mark.parametrize(
    "argv", [[name] for name in COMMANDS] + [["bundle", "show"], ["bundle", "verify"]], ids=" ".join
)
def test_help_of_a_command_gives_examples_and_the_config_option(capsys, argv):
    text = run_help(capsys, *argv)
    assert f"  ecgwatch {' '.join(argv)}" in text.split("examples:")[1]
    assert "--config" in text


def test_version_is_the_installed_one(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.startswith("ecgwatch 0.")


def test_a_wrong_key_is_one_line_with_file_line_and_key_and_exit_code_78(tmp_path, capsys):
    file = tmp_path / "config.toml"
    file.write_text('[kafka]\nbrokers = "a:1"\ngruop = "x"\n')
    assert cli.main(["worker", "-c", str(file)]) == 78
    assert capsys.readouterr().err == f"ecgwatch: {file}:3: [kafka] gruop: unknown key\n"


def test_a_missing_config_file_is_one_line(tmp_path, capsys):
    assert cli.main(["check", "-c", str(tmp_path / "none.toml")]) == 78
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "inf", "fast"])
def test_a_speed_that_is_no_positive_number_is_a_wrong_command_line(capsys, speed):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["replay", "100", "--speed", speed])
    assert exit_.value.code == 2
    assert f"argument --speed: {speed} is not a number above 0, nor 'max'\n" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--speed", "--seconds", "--false-alerts-per-hour"])
def test_an_option_of_the_demo_that_is_no_number_is_told_in_words(capsys, option):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["demo", option, "abc"])
    assert exit_.value.code == 2
    assert f"argument {option}: abc is not a number above 0\n" in capsys.readouterr().err


def test_the_example_of_check_restarts_the_worker_where_a_restart_helps(capsys):
    """Not for a broker that is away (69), a refused password (77) or a wrong setting (78)."""
    line = next(line for line in run_help(capsys, "check").splitlines() if "restart" in line)
    command = line.split("   (")[0].replace("ecgwatch check -c config.toml", "(exit $CODE)")
    restarted = [
        code
        for code in ("0", "69", "75", "77", "78")
        if subprocess.run(
            ["sh", "-c", command.replace("systemctl restart ecgwatch", "echo restarted")],
            env={"CODE": code},
            capture_output=True,
            check=True,
        ).stdout
    ]
    assert restarted == ["75"]


def test_a_replay_may_go_as_fast_as_the_broker_takes_it():
    assert cli.parser().parse_args(["replay", "100", "--speed", "max"]).speed == math.inf


def test_training_without_torch_says_what_to_install(capsys):
    """In a process of its own, where torch cannot be found."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from ecgwatch import cli; sys.exit(cli.main(['train', '--dataset', 'arrhythmia']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        78,
        "ecgwatch: training needs torch: in a clone, pip install '.[train]'\n",
    )


def test_a_bundle_is_shown_as_json_and_its_card_as_text(capsys):
    assert cli.main(["bundle", "show"]) == 0
    assert json.loads(capsys.readouterr().out)["contract"]["kind"] == "bedside"
    assert cli.main(["bundle", "show", "--card"]) == 0
    assert capsys.readouterr().out.startswith("# Model card:")


def test_the_schemas_command_writes_one_file_per_topic(tmp_path):
    assert cli.main(["schemas", "--directory", str(tmp_path)]) == 0
    assert {file.name for file in tmp_path.iterdir()} >= {
        "beats.schema.json",
        "scores.schema.json",
        "alerts.schema.json",
    }


def test_python_m_ecgwatch_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "ecgwatch", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: ecgwatch ")
