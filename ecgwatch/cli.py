"""The command line: parses, prints, exits, nothing else.

Each command imports what it needs when it runs, so that `ecgwatch --help` is quick and `ecgwatch worker` loads no
training code.
"""

import argparse
import io
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ecgwatch import config
from ecgwatch.errors import ConfigError, EcgwatchError

INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_EPILOG = """\
exit codes:
  0 done, or stopped as asked   2 wrong command line   65 damaged bundle      66 missing files
  69 no broker or topic        70 a batch failed       75 stuck               77 access refused
  78 wrong setting            130 interrupted         143 stopped twice (SIGTERM)

Start with `ecgwatch demo`: it needs no Kafka and no files. ecgwatch is no medical device.
"""


def entry() -> None:
    """Run the command line of this process and exit."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; errors that a user can cure are one line on stderr."""
    args = parser(argv[0] if argv else None).parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that the terminal's encoding lacks must not end the command
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        settings = config.load(args.config)
        return args.command(args, settings)
    except EcgwatchError as error:
        print(f"ecgwatch: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `ecgwatch alerts | head`: whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _worker(args: argparse.Namespace, settings: config.Settings) -> int:
    from ecgwatch import worker

    return worker.run(settings)


def _check(args: argparse.Namespace, settings: config.Settings) -> int:
    from ecgwatch import check

    print(check.check(settings))
    return 0


def _demo(args: argparse.Namespace, settings: config.Settings) -> int:
    from ecgwatch import demo

    return demo.run(
        settings,
        records=args.records,
        speed=args.speed,
        seconds=args.seconds,
        rate=args.rate,
        plain=args.plain,
        svg=args.svg,
    )


def _train(args: argparse.Namespace, settings: config.Settings) -> int:
    if missing := [name for name in ("torch", "wfdb", "openTSNE", "onnx") if find_spec(name) is None]:
        raise ConfigError(f"training needs {', '.join(missing)}: in a clone, pip install '.[train]'")
    from training import cli as training_cli

    return training_cli.run(args, settings)


def _benchmark(args: argparse.Namespace, settings: config.Settings) -> int:
    if missing := [name for name in ("torch", "wfdb", "openTSNE", "onnx", "umap") if find_spec(name) is None]:
        raise ConfigError(f"the comparisons need {', '.join(missing)}: in a clone, pip install '.[benchmark]'")
    from training.benchmark import cli as benchmark_cli

    return benchmark_cli.run(args, settings)


def _score(args: argparse.Namespace, settings: config.Settings) -> int:
    from ecgwatch import score

    score.score_records(settings, args.records, lead=args.lead, form=args.format, out=sys.stdout)
    return 0


def _replay(args: argparse.Namespace, settings: config.Settings) -> int:
    from ecgwatch import clients

    sent = clients.replay(settings, args.record, speed=args.speed, patient=args.patient, lead=args.lead, form=args.form)
    print(f"{sent} beats published to {settings.topics.beats}")
    return 0


def _alerts(args: argparse.Namespace, settings: config.Settings) -> int:
    from ecgwatch import clients

    with suppress(KeyboardInterrupt):  # the way to end it
        clients.follow(settings, form=args.format, from_beginning=args.from_beginning)
    return 0


def _baseline_show(args: argparse.Namespace, settings: config.Settings) -> int:
    from ecgwatch import baselines

    for lead in baselines.show(settings, args.patient):
        print(baselines.describe(lead))
    return 0


def _baseline_reset(args: argparse.Namespace, settings: config.Settings) -> int:
    from ecgwatch import baselines

    baselines.reset(settings, args.patient)
    print(f"reset on topic {settings.topics.baselines}; the typical beat is learned again from the next beat on")
    return 0


def _bundle_show(args: argparse.Namespace, settings: config.Settings) -> int:
    from ecgwatch import bundle

    loaded = bundle.load(args.bundle or settings.model.bundle)
    print(loaded.card if args.card else bundle.describe(loaded))
    return 0


def _bundle_verify(args: argparse.Namespace, settings: config.Settings) -> int:
    from ecgwatch import bundle, scorer

    loaded = bundle.load(args.bundle or settings.model.bundle)
    scorer.verify(loaded)
    print(f"{args.bundle or settings.model.bundle}: whole, every hash matches; model {loaded.sha256}")
    return 0


def _schemas(args: argparse.Namespace, settings: config.Settings) -> int:
    from ecgwatch import messages

    for name, schema in messages.json_schemas().items():
        text = json.dumps(schema, indent=2) + "\n"
        if args.directory is None:
            print(text, end="")
        else:
            try:
                args.directory.mkdir(parents=True, exist_ok=True)
                (args.directory / f"{name}.schema.json").write_text(text)
            except OSError as error:
                raise ConfigError(f"--directory {args.directory}: {error.strerror}: {error.filename}") from None
    return 0


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of all commands; of `train` and `benchmark` it knows the options of the one that is named."""
    top = argparse.ArgumentParser(
        prog="ecgwatch",
        description="Watch electrocardiograms: score each heartbeat that arrives on Kafka, publish alerts.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"ecgwatch {version('ecgwatch')}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_service(commands)
    _add_clients(commands)
    _add_baselines(commands)
    _add_models(commands)
    _add_training(commands, command)
    return top


def _add_service(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    _command(
        commands,
        "worker",
        _worker,
        "score beats from Kafka and publish alerts, until SIGTERM or Ctrl-C",
        """
        ecgwatch worker -c config.toml
        ECGWATCH_KAFKA_BROKERS=kafka-1:9092,kafka-2:9092 ecgwatch worker
        """,
    )
    _command(
        commands,
        "check",
        _check,
        "tell from outside whether the group's workers make progress; 0 is healthy",
        """
        ecgwatch check -c config.toml
        ecgwatch check -c config.toml; [ $? -ne 75 ] || systemctl restart ecgwatch   (75 alone is cured by that)
        """,
    )
    demo = _command(
        commands,
        "demo",
        _demo,
        "show it all at work in this terminal: broker, patients, worker, alerts; no Kafka needed",
        """
        ecgwatch demo
        ecgwatch demo --speed 1 --records 233 105
        """,
    )
    demo.add_argument("--records", nargs="+", metavar="RECORD", help="play these of the shipped excerpts; default: all")
    demo.add_argument("--speed", type=_positive, default=4.0, metavar="X", help="times real time; default %(default)g")
    demo.add_argument("--seconds", type=_positive, metavar="N", help="end after N seconds; default: with the excerpts")
    demo.add_argument(
        "--false-alerts-per-hour",
        dest="rate",
        type=_positive,
        metavar="R",
        help="take the threshold meant for this rate; "
        "default: the highest rate the bundle knows (the lowest threshold), so that a minute shows some",
    )
    demo.add_argument("--svg", type=Path, metavar="FILE", help="save the last picture")
    demo.add_argument("--plain", action="store_true", help="print lines instead of the live view; so does a pipe")


def _add_clients(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    replay = _command(
        commands,
        "replay",
        _replay,
        "publish the beats of a WFDB record with their true timing",
        """
        ecgwatch replay mitdb/233                       (mitdb/233.hea, .dat and .atr)
        ecgwatch replay mitdb/233 --speed 10 --patient ward-3-bed-2
        """,
    )
    replay.add_argument("record", type=Path, metavar="RECORD", help="path of a WFDB record, without suffix")
    replay.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="X",
        help="times real time, or 'max': as fast as the broker takes them; default %(default)g",
    )
    replay.add_argument("--patient", metavar="NAME", help="the patient's pseudonym; default: the record's name")
    replay.add_argument("--lead", metavar="LEAD", help="default: MLII where there is one, else the first")
    replay.add_argument("--form", choices=("binary", "json"), default="binary", help="wire form; default: %(default)s")
    alerts = _command(
        commands,
        "alerts",
        _alerts,
        "follow the alert topic; repeats are dropped",
        """
        ecgwatch alerts -c config.toml
        ecgwatch alerts --format jsonl --from-beginning | jq .reason
        """,
    )
    alerts.add_argument("--format", choices=("table", "jsonl"), default="table", help="default: %(default)s")
    alerts.add_argument("--from-beginning", action="store_true", help="also show the alerts that the topic still holds")


def _add_baselines(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    actions = commands.add_parser("baseline", help="look at what is known of a patient: show, reset").add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    for name, function, summary in (
        ("show", _baseline_show, "print the typical beat of a patient, of each lead, as the workers last saved it"),
        ("reset", _baseline_reset, "make the workers forget a patient, and learn the typical beat again"),
    ):
        action = _command(actions, name, function, summary, f"ecgwatch baseline {name} ward-3-bed-2 -c config.toml")
        action.add_argument("patient", metavar="PATIENT", help="the pseudonym, as in the Kafka key")


def _add_training(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", command: str | None) -> None:
    train = _command(
        commands,
        "train",
        _train,
        "train a model and write its bundle (needs the extra [train])",
        """
        ecgwatch train --dataset arrhythmia
        ECGWATCH_DATA_DIRECTORY=/srv/data ecgwatch train --dataset arrhythmia --split by-beat
        """,
    )
    benchmark = _command(
        commands,
        "benchmark",
        _benchmark,
        "compare ways to score, from models trained once and predictions saved (needs the extra [benchmark])",
        """
        ecgwatch benchmark placement --quick
        ecgwatch benchmark placement --jobs 2
        """,
    )
    # the worker's process loads nothing of `training`
    if command == "train":
        from training import cli as training_cli

        training_cli.add_arguments(train)
    elif command == "benchmark":
        from training.benchmark import cli as benchmark_cli

        benchmark_cli.add_arguments(benchmark)


def _add_models(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    score = _command(
        commands,
        "score",
        _score,
        "score WFDB records at their annotated R peaks, one line a beat, without Kafka",
        """
        ecgwatch score mitdb/100 mitdb/233 > scores.jsonl
        ecgwatch score mitdb/233 --format csv
        """,
    )
    score.add_argument("records", nargs="+", type=Path, metavar="RECORD", help="paths of WFDB records, without suffix")
    score.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="default: %(default)s")
    score.add_argument("--lead", metavar="LEAD", help="default: MLII where there is one, else the first")
    actions = commands.add_parser("bundle", help="look at a model bundle: show, verify").add_subparsers(
        title="commands", required=True, metavar="COMMAND"
    )
    for name, function, summary in (
        ("show", _bundle_show, "print what a bundle takes, how it was made, and its figures"),
        (
            "verify",
            _bundle_verify,
            "check every file of a bundle against its hash, and the model against the map; 0 is whole",
        ),
    ):
        action = _command(
            actions, name, function, summary, f"ecgwatch bundle {name}\necgwatch bundle {name} runs/mine/bundle"
        )
        action.add_argument(
            "bundle",
            nargs="?",
            metavar="BUNDLE",
            help="'default', a folder or a .zip; default: [model] bundle of the settings",
        )
        if name == "show":
            action.add_argument("--card", action="store_true", help="print its model card instead")
    schemas = _command(
        commands,
        "schemas",
        _schemas,
        "print the JSON Schemas of the topics",
        "ecgwatch schemas\necgwatch schemas --directory docs/schemas",
    )
    schemas.add_argument("--directory", type=Path, metavar="DIR", help="write one file per topic instead")


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    function: Callable[[argparse.Namespace, config.Settings], int],
    summary: str,
    examples: str,
) -> argparse.ArgumentParser:
    lines = [line.strip() for line in examples.strip().splitlines()]
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  {line}" for line in lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        help="settings (TOML); default: the built-in ones; the environment overrides each key: ECGWATCH_SECTION_KEY",
    )
    parser.set_defaults(command=function)
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def _speed(text: str) -> float:
    try:
        return math.inf if text == "max" else _positive(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor 'max'") from None
