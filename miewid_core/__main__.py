"""Command line of the package: `python -m miewid_core --help`."""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from miewid_core.files import CACHE
from miewid_core.runs import repeat
from miewid_core.runs.run import Run

REPEAT = """Train a finished run again from its folder alone (run.json, rows.csv), with as many
threads as then, and say whether the weights are equal bit by bit. Exit status: 0 equal, 1 not
equal, 2 not done."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exits with its status."""
    parser = argparse.ArgumentParser(prog="python -m miewid_core", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    own = commands.add_parser("repeat", help="train a run again and compare", description=REPEAT)
    own.add_argument("run", type=Path, metavar="RUN_FOLDER", help="a folder of the runs' folder")
    own.add_argument("--chips", type=Path, default=CACHE / "chips", help="where its chips lie")
    own.add_argument("--catalog", default="", help="to make chips from that are missing there")
    own.add_argument("--pretrained", default="", help="the weights file it began with, if any")
    own.add_argument("--into", type=Path, help="keep the repetition here; resumes a stopped one")
    own.set_defaults(command=_repeat)
    given = parser.parse_args(arguments)
    try:
        given.command(given)
    except (ValueError, OSError, FloatingPointError) as error:
        own.error(str(error))


def _repeat(given: argparse.Namespace) -> None:
    run = Run(given.run.resolve())
    with TemporaryDirectory(prefix="miewid-repeat-") as temporary:
        where = given.into or Path(temporary)
        again = repeat.repeat(run, where, given.chips, given.catalog, given.pretrained)
        found, why = repeat.differences(run, again), repeat.causes(run, again)
    sys.stdout.write(f"{repeat.in_words(found, why)}\n")
    sys.exit(not found.empty)


if __name__ == "__main__":
    main()
