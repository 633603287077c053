"""Regenerate the paper's tables and figures, and what else can be done from a command line."""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from inspect import getdoc, signature
from pathlib import Path
from tempfile import TemporaryDirectory

from miewid_core.files import CACHE, ROOT

WORDS = "parameters as the notebooks have them, such as CATALOG=photos.csv PRESET=compact SEED=1"


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exits with its status: 2 where its arguments can't be taken."""
    parser = argparse.ArgumentParser(prog="miewid", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for run, options in COMMANDS.items():
        about = getdoc(run)
        told = about.partition(".")[0]
        own = commands.add_parser(
            run.__name__, help=f"{told[:1].lower()}{told[1:]}", description=about
        )
        own.set_defaults(run=run)
        for name, settings in options.items():
            own.add_argument(*name.split(), **settings)
    given, rest = parser.parse_known_args(arguments)
    try:
        if "parameters" in given:
            given.parameters = _words(given, rest)
        elif rest:
            raise ValueError(f"{' '.join(rest)} is none of its arguments; --help lists them")
        given.run(given)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        parser.exit(2, f"miewid: {error}\n")


def _words(given: argparse.Namespace, rest: list[str]) -> dict[str, str]:
    """NAME=VALUE wherever they stand, of options that take several words, too."""
    from miewid_core.runs.notebooks import parse

    only = getattr(given, "only", [])
    words = [*given.parameters, *rest, *(word for word in only if "=" in word)]
    given.only = [word for word in only if "=" not in word]
    for word in words:
        if word.startswith("-"):
            raise ValueError(f"there is no option {word}; --help lists them")
    return parse(words)


def figures(given: argparse.Namespace) -> None:
    """Run the notebooks; tables and figures go to figures/<data>/."""
    from miewid_core.paper import report
    from miewid_core.paper.study import DEMO, figures_folder
    from miewid_core.runs import notebooks

    every = notebooks.chosen(given.only)
    surroundings = notebooks.parse(notebooks.from_environment(every))
    for name in surroundings.keys() - given.parameters.keys():
        sys.stderr.write(f"{name.upper()}={surroundings[name]}, from the environment\n")
    words = surroundings | given.parameters
    catalog = words.get("catalog", DEMO)
    folder = Path(words.get("figures_dir") or _kept_figures() / figures_folder(catalog).name)
    folder, begun, lines, ended = folder.expanduser(), time.time(), [], None
    try:
        ended = notebooks.run(every, folder / "notebooks", words, given.at_once)
        runs = Path(words.get("runs_dir") or CACHE / "runs").expanduser()
        lines = [*_in_words(ended, begun), f"Trained: {_trained_since(begun, runs)}."]
    except notebooks.NotebookError as error:
        sys.stderr.write(f"\n{error}\n")
    lines += [f"Tables and figures: {folder}", f"Report: {report.write(folder, catalog, words)}"]
    review = folder / "photos" / "review.html"
    if any(done.notebook.startswith("12") for done in ended or ()) and review.exists():
        lines.append(f"Review page: {review}")
    sys.stdout.write("\n".join(lines) + "\n")
    if ended is None:
        sys.exit(1)


def _kept_figures() -> Path:
    """Where the notebooks that a command runs save, and not where those run by hand do."""
    return Path(os.environ.setdefault("MIEWID_FIGURES", str(ROOT / "figures")))


def _in_words(ended: list, begun: float) -> list[str]:
    """What ran since `begun`, how long it took, and what it found."""
    lines = [f"\n{len(ended)} notebooks in {time.time() - begun:.0f} s:"]
    for done in ended:
        found = f"skipped: {done.skipped}" if done.skipped else done.headline or "done"
        lines.append(f"  {done.notebook} ({done.seconds:.0f} s): {found}")
    return lines


def _trained_since(begun: float, runs: Path) -> str:
    """How many networks were trained since then, and how long that took in all."""
    new = [path for path in runs.glob("*/run.json") if path.stat().st_mtime >= begun]
    records = [json.loads(path.read_bytes()) for path in new]
    trained = [told["seconds"] for told in records if told["spec"]["config"]["epochs"]]
    if not trained:
        return "nothing, all networks were there already"
    return f"{len(trained)} networks in {sum(trained) / 60:.1f} minutes of training"


def refresh(given: argparse.Namespace) -> None:
    """Rewrite the committed notebooks, executed on the demo data."""
    from miewid_core.runs import notebooks

    _kept_figures()
    try:
        notebooks.refresh(notebooks.chosen(given.only))
    except notebooks.NotebookError as error:
        sys.stderr.write(f"\n{error}\n")
        sys.exit(1)


def verify(given: argparse.Namespace) -> None:
    """Compare the tables in figures/<data>/ with the committed ones.

    Exit status: 0 equal or within their intervals, 1 not, 2 not done.
    """
    from miewid_core.runs.verify import verify

    agrees, words = verify(given.folder)
    sys.stdout.write(f"{words}\n")
    sys.exit(not agrees)


def plan(given: argparse.Namespace) -> None:
    """What would be trained for the notebooks, and how long it would take.

    CATALOG=paper for the paper's Table 1, RATE=300 for 300 photos/s.
    """
    from miewid_core.beyond_paper import identify
    from miewid_core.paper import plan
    from miewid_core.paper.study import open_study
    from miewid_core.runs import bill

    of_paper = given.parameters.get("catalog") == "paper"
    words = {"preset": "paper" if of_paper else "demo"} | given.parameters
    rate = float(words.pop("rate", 0))
    _refuse_unknown(words, open_study, plan.asked)
    few = _taken(words, plan.asked)
    opened = plan.paper_study if of_paper else open_study
    study = opened(**_taken(words, opened))
    asked = plan.asked(study, **few) | {"12": identify.asked(study)}
    table = bill.summary(asked, study.config, rate)
    sys.stdout.write(f"{table.to_string(index=False, float_format='{:.2f}'.format)}\n")
    sys.stdout.write(f"{bill.in_words(table)}\n")


def _refuse_unknown(words: dict[str, str], *functions: Callable) -> None:
    """Raise ValueError for words that neither the functions nor any notebook takes."""
    from miewid_core.runs import notebooks

    names = {name for function in functions for name in signature(function).parameters}
    if rest := {name: value for name, value in words.items() if name not in names}:
        notebooks.shared(notebooks.chosen([]), rest)


def _taken(words: dict[str, str], function: Callable) -> dict[str, object]:
    """Those of the words that a function takes, of the kinds that it declares."""
    from miewid_core.runs.notebooks import typed

    taken = {}
    for name, parameter in signature(function).parameters.items():
        if name in words:
            kind = parameter.annotation
            plain = kind.__name__ if kind in (str, int, float, bool) else "list"
            taken[name] = typed(name, words[name], plain)
    return taken


def identify(given: argparse.Namespace) -> None:
    """A page on which photos of unidentified animals are named.

    FINAL=true trains on all known photos.
    """
    from miewid_core.beyond_paper import identify
    from miewid_core.paper.study import open_study

    options = {"catalog": given.catalog, "weights": given.weights, "figures_dir": given.output}
    words = {"on_problem": "drop"} | given.parameters
    takes = {*signature(open_study).parameters, "final", "scores", "false_matches"} - {*options}
    if strange := ", ".join(sorted(words.keys() - takes)):
        raise ValueError(f"identify takes no {strange}; --help lists its options")
    words |= options
    opened = _taken(words, open_study)
    where = {name: opened[name] for name in identify.WHERE if name in opened}
    asked = _taken(words, identify.write_review) | where
    told = identify.write_review(open_study(**opened), given.photos, **asked)
    sys.stdout.write(f"{told}\n")


def catalog(given: argparse.Namespace) -> None:
    """Write any catalog, or a public set, as a checked CSV under the paper's names of species.

    SOURCE is a CSV, a COCO JSON such as those of Wild Me on LILA, a folder species/individual/, or
    a class of the package wildlife-datasets, if you have installed it, such as HappyWhale. The
    column `file` or `wildlife_datasets` of miewid_core/paper/cards/datasets.csv names it for each
    public set. Rows with a problem are left out and listed.
    """
    from miewid_core.paper import public

    if given.output.resolve() == Path(given.source).expanduser().resolve():
        raise ValueError(f"{given.output} is the source itself; write to another file")
    rows = public.read(given.source, given.folder, given.species, given.absolute_paths)
    sys.stdout.write(f"{public.write(rows, given.output)}\n")


def evaluate(given: argparse.Namespace) -> None:
    """Top-1, -5, -10, -20 and mAP of a network on a catalog taken whole as the test set.

    Each annotation searches all others of its species (section 3.4), with 95 % intervals over
    individuals. Nothing is trained or split. On a split that the network's makers tested on, this
    repeats their numbers: the authors' code resizes by `--resizing plugin`.
    """
    from miewid_core.beyond_paper.evaluate import whole_catalog

    words = {name: value for name, value in vars(given).items() if name != "run"}
    words["sides_differ"] = [name for name in given.sides_differ.split(",") if name]
    sys.stdout.write(f"{whole_catalog(**words)}\n")


def train(given: argparse.Namespace) -> None:
    """One training shared by the GPUs of this computer; start it with torchrun.

    LEFT_OUT=species for the leave-one-out network of a species.
    """
    from miewid_core.paper.study import open_study
    from miewid_core.runs import multi_gpu

    if "RANK" not in os.environ:
        raise ValueError("start it with torchrun --nproc_per_node=4 -m miewid_core train ...")
    left_out = given.parameters.pop("left_out", "")
    _refuse_unknown(given.parameters, open_study)
    with multi_gpu.joined() as first:
        if first:
            study = open_study(**_taken(given.parameters, open_study))
            training = study.left_out([left_out])[left_out] if left_out else study.multi()
            title = f"{training.title}, shared by {multi_gpu.count()}"
            run = dataclasses.replace(training, title=title).run()
            sys.stdout.write(f"{run.folder}\n")


def repeat(given: argparse.Namespace) -> None:
    """Train a finished run again and compare the weights bit by bit.

    Exit status: 0 equal, 1 not equal, 2 not done.
    """
    from miewid_core.readers.load import load_catalog
    from miewid_core.runs import repeat
    from miewid_core.runs.run import Run

    run, rows = Run(given.folder.resolve()), None
    if given.catalog:
        rows = load_catalog(
            given.catalog,
            on_problem="drop",
            verify=False,
            absolute_paths=given.absolute_paths,
            photos_dir=given.photos_dir,
            species=given.species,
        )
    with TemporaryDirectory(prefix="miewid-repeat-") as temporary:
        where = given.into or Path(temporary)
        again = repeat.repeat(run, where, given.chips, rows, given.pretrained)
        different, why = repeat.differences(run, again), repeat.causes(run, again)
    sys.stdout.write(f"{repeat.in_words(different, why)}\n")
    sys.exit(not different.empty)


def bench(given: argparse.Namespace) -> None:
    """Measure the comparisons of notebook 13 in full, into figures/performance/.

    What was measured before is kept. `gpu` is all that needs a GPU, in less than ten minutes.
    """
    from miewid_core.bench import harness

    sys.stdout.write(f"{harness.run(given.task, given.rounds, given.again)}\n")


PARAMETERS = {"parameters": {"nargs": "*", "metavar": "NAME=VALUE", "help": WORDS}}
ONLY = {"--only": {"nargs": "+", "default": [], "metavar": "04", "help": "starts of names"}}
READING = {
    "--photos-dir": {"default": "", "help": "where the catalog's photos lie"},
    "--absolute-paths": {"action": "store_true", "help": "take those of the catalog"},
    "--species": {"default": "", "help": "of the catalog's rows that have none"},
}
COMMANDS = {  # with their arguments
    figures: PARAMETERS
    | ONLY
    | {"--at-once": {"type": int, "default": 0, "help": "side by side (2, on a GPU 1)"}},
    refresh: ONLY,
    verify: {
        "folder": {
            **{"type": Path, "nargs": "?", "default": ROOT / "figures" / "demo"},
            "help": "figures/demo if none",
        }
    },
    plan: PARAMETERS,
    identify: {
        "photos": {"help": "of unidentified animals: a folder, or a CSV with boxes"},
        **PARAMETERS,
        "--catalog": {"required": True, "help": "known animals: a CSV, JSON, or folder"},
        "--weights": {"default": "", "help": "the network; trained on the catalog if none"},
        "-o --output": {"default": "review", "help": "folder of the review page"},
    },
    catalog: {
        "source": {"help": "a CSV, COCO JSON or folder, or a class of wildlife-datasets"},
        "folder": {"nargs": "?", "default": "", "help": "of its photos, or of the public set"},
        "-o --output": {"type": Path, "required": True, "help": "the CSV"},
        **{name: READING[name] for name in ("--absolute-paths", "--species")},
    },
    evaluate: {
        "catalog": {"help": "its annotations, all of which are tested"},
        "weights": {"help": "a run's folder, one of the hub, a file or checkpoint"},
        "--resizing": {"default": "", "choices": ["card", "plugin"], "help": "of the chips"},
        "--sides-differ": {"default": "", "help": "species, with commas"},
        **READING,
    },
    train: PARAMETERS,
    repeat: {
        "folder": {"type": Path, "metavar": "RUN_FOLDER", "help": "a folder of .cache/runs"},
        "--chips": {"type": Path, "default": CACHE / "chips", "help": "where its chips lie"},
        "--catalog": {"default": "", "help": "to make chips from that are missing there"},
        **READING,
        "--pretrained": {"default": "", "help": "the weights file it began with, if any"},
        "--into": {"type": Path, "help": "keep the repetition here; resumes a stopped one"},
    },
    bench: {
        "task": {"nargs": "*", "metavar": "TASK", "help": "evaluation loss step peers growth gpu"},
        "--rounds": {"type": int, "default": 3, "help": "measurements of each way (3)"},
        "--again": {"action": "store_true", "help": "also what was measured before"},
    },
}

if __name__ == "__main__":
    main()
