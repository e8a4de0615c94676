"""`python -m training.floor` and others like it: no options but --help, errors in one line with their exit code."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from ecgwatch import config
from ecgwatch.errors import EcgwatchError


def run(name: str, text: str, work: Callable[[Path], None], argv: Sequence[str] | None = None) -> None:
    """Do a script's work with the folder of the MIT-BIH records; text: what --help says."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    try:
        work(Path(config.load().data.directory) / "mitdb")
    except EcgwatchError as error:
        parser.exit(error.exit_code, f"{error}\n")
