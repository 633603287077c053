"""Runs the numbered notebooks through papermill: `python -m miewid_core.notebooks --help`."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import papermill
import yaml

from miewid_core.files import CACHE, ROOT

FOLDER = ROOT / "notebooks"
VOLATILE = "metadata.papermill cell.metadata.papermill cell.metadata.execution"


class ParameterError(ValueError):
    """A parameter that a notebook doesn't have, or that can't be read."""


def parse(assignments: list[str]) -> dict[str, object]:
    """Parameters from words NAME=VALUE: names in lower case, values read as YAML.

    Raises ParameterError for a word of another form.
    """
    parameters = {}
    for word in assignments:
        name, sign, value = word.partition("=")
        if not (sign and name.isidentifier()):
            raise ParameterError(f"{word!r} is no parameter; write NAME=VALUE, such as SEED=1")
        try:
            parameters[name.lower()] = "" if value == "" else yaml.safe_load(value)
        except yaml.YAMLError:
            raise ParameterError(f"the value of {word!r} can't be read; put it in quotes") from None
    return parameters


def check(notebook: Path, parameters: dict[str, object]) -> None:
    """Raise ParameterError naming the parameters that `notebook` doesn't have, and those it has."""
    known = papermill.inspect_notebook(str(notebook))
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ParameterError(
            f"{notebook.name} has no parameter {', '.join(unknown)}; it has {', '.join(known)}"
        )


def chosen(words: list[str]) -> list[Path]:
    """The notebooks whose names start with one of `words` (all without any), in their order."""
    every = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
    found = [path for path in every if not words or path.name.startswith(tuple(words))]
    if not found:
        names = ", ".join(path.stem for path in every)
        raise ParameterError(f"no notebook starts with {', '.join(words)}; there are {names}")
    return found


def execute(notebook: Path, output: Path, parameters: dict[str, object], cwd: Path | None) -> None:
    """Run one notebook into `output`, its progress bars on this terminal."""
    output.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(notebook),
        str(output),
        parameters,
        kernel_name="python3",
        stderr_file=sys.stderr,
        cwd=cwd and str(cwd),
    )


def run(notebooks: list[Path], output: Path, parameters: dict[str, object]) -> None:
    """Run notebooks with the same parameters, all of them checked before the first one starts."""
    for notebook in notebooks:
        check(notebook, parameters)
    for number, notebook in enumerate(notebooks, 1):
        sys.stderr.write(f"\n[{number}/{len(notebooks)}] {notebook.name}\n")
        begun = time.monotonic()
        execute(notebook, output / notebook.name, parameters, cwd=None)
        sys.stderr.write(f"{notebook.name}: {time.monotonic() - begun:.0f} s\n")


def refresh(notebooks: list[Path]) -> None:
    """Run notebooks on the demo data in place, and clean them for git with their outputs kept."""
    os.environ["TQDM_DISABLE"] = "1"  # the kernel inherits it: no progress bars in what is kept
    for notebook in notebooks:
        sys.stderr.write(f"{notebook.name}\n")
        execute(notebook, notebook, {}, cwd=FOLDER)
        options = ["--keep-output", "--keep-count", "--extra-keys", VOLATILE]
        subprocess.run([sys.executable, "-m", "nbstripout", *options, str(notebook)], check=True)


def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m miewid_core.notebooks", description=__doc__)
    parser.add_argument("action", choices=["run", "refresh"], help="refresh: rewrite them for git")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="such as SEED=1")
    parser.add_argument("--only", nargs="+", default=[], metavar="04", help="starts of names")
    parser.add_argument("--output", type=Path, default=CACHE / "notebooks", help="executed copies")
    given = parser.parse_args(arguments)
    try:
        parameters = parse(given.parameters)
        if given.action == "refresh":
            refresh(chosen(given.only))
        else:
            run(chosen(given.only), given.output, parameters)
    except ParameterError as error:
        parser.error(str(error))
    except papermill.PapermillExecutionError as error:
        parser.exit(1, f"\n{error.ename} in a cell of the notebook: {error.evalue}\n")


if __name__ == "__main__":
    main()
