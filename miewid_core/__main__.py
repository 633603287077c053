"""Regenerate the paper's tables and figures, and what else can be done from a command line."""

import argparse
import dataclasses
import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from miewid_core.files import CACHE, ROOT

WORDS = "parameters as the notebooks have them, such as CATALOG=photos.csv PRESET=compact SEED=1"


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exits with its status: 2 where its arguments can't be taken."""
    parser = argparse.ArgumentParser(prog="miewid", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (told, add) in COMMANDS.items():
        add(commands.add_parser(name, help=told, description=f"{told.capitalize()}."))
    given, rest = parser.parse_known_args(arguments)
    try:
        given.run(given, rest)
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        parser.exit(2, f"miewid: {error}\n")


def _words(given: argparse.Namespace, rest: list[str]) -> list[str]:
    """NAME=VALUE wherever they stand, of options that take several words, too."""
    only = getattr(given, "only", [])
    words = [*given.parameters, *rest, *(word for word in only if "=" in word)]
    given.only = [word for word in only if "=" not in word]
    for word in words:
        if word.startswith("-"):
            raise ValueError(f"there is no option {word}; --help lists them")
    return words


def _add_figures(parser: argparse.ArgumentParser) -> None:
    _add_only(parser)
    parser.add_argument("--at-once", type=int, default=0, help="side by side (2, on a GPU 1)")
    parser.set_defaults(run=_figures)


def _add_only(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help=WORDS)
    parser.add_argument("--only", nargs="+", default=[], metavar="04", help="starts of names")


def _figures(given: argparse.Namespace, rest: list[str]) -> None:
    from miewid_core.paper import report
    from miewid_core.paper.study import DEMO, figures_folder
    from miewid_core.runs import notebooks

    words = notebooks.parse(_words(given, rest))
    every = notebooks.chosen(given.only)
    surroundings = notebooks.parse(notebooks.from_environment(every))
    for name in surroundings.keys() - words.keys():
        sys.stderr.write(f"{name.upper()}={surroundings[name]}, from the environment\n")
    words = surroundings | words
    catalog = words.get("catalog", DEMO)
    folder = Path(words.get("figures_dir") or _kept_figures() / figures_folder(catalog).name)
    folder, begun, ended, failed = folder.expanduser(), time.time(), [], False
    try:
        ended = notebooks.run(every, folder / "notebooks", words, given.at_once)
    except notebooks.NotebookError as error:
        failed = True
        sys.stderr.write(f"\n{error}\n")
    runs = Path(words.get("runs_dir") or CACHE / "runs").expanduser()
    lines = [] if failed else [*_in_words(ended, begun), f"Trained: {_trained_since(begun, runs)}."]
    lines += [f"Tables and figures: {folder}", f"Report: {report.write(folder, catalog, words)}"]
    review = folder / "photos" / "review.html"
    if any(done.notebook.startswith("12") for done in ended) and review.exists():
        lines.append(f"Review page: {review}")
    sys.stdout.write("\n".join(lines) + "\n")
    if failed:
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


def _add_refresh(parser: argparse.ArgumentParser) -> None:
    _add_only(parser)
    parser.set_defaults(run=_refresh)


def _refresh(given: argparse.Namespace, rest: list[str]) -> None:
    from miewid_core.runs import notebooks

    if words := _words(given, rest):
        raise ValueError(f"{', '.join(words)}: the committed notebooks keep their parameters")
    _kept_figures()
    try:
        notebooks.refresh(notebooks.chosen(given.only))
    except notebooks.NotebookError as error:
        sys.stderr.write(f"\n{error}\n")
        sys.exit(1)


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.description += " Exit status: 0 equal or within their intervals, 1 not, 2 not done."
    folder = ROOT / "figures" / "demo"
    parser.add_argument("folder", type=Path, nargs="?", default=folder, help="figures/demo if none")
    parser.set_defaults(run=_verify)


def _verify(given: argparse.Namespace, rest: list[str]) -> None:
    from miewid_core.runs.verify import verify

    if rest:
        raise ValueError(f"{' '.join(rest)} is none of its arguments; --help lists them")
    agrees, words = verify(given.folder)
    sys.stdout.write(f"{words}\n")
    sys.exit(not agrees)


def _add_plan(parser: argparse.ArgumentParser) -> None:
    words = f"{WORDS}; CATALOG=paper for the paper's Table 1, RATE=300 for 300 photos/s"
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help=words)
    parser.set_defaults(run=_plan)


def _plan(given: argparse.Namespace, rest: list[str]) -> None:
    from miewid_core.beyond_paper import identify
    from miewid_core.paper import plan
    from miewid_core.paper.study import open_study
    from miewid_core.runs import bill
    from miewid_core.runs.notebooks import parse

    words = parse(_words(given, rest))
    of_paper = words.get("catalog") == "paper"
    words = {"preset": "paper" if of_paper else "demo"} | words
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

    names = {name for function in functions for name in inspect.signature(function).parameters}
    if rest := {name: value for name, value in words.items() if name not in names}:
        notebooks.shared(notebooks.chosen([]), rest)


def _taken(words: dict[str, str], function: Callable) -> dict[str, object]:
    """Those of the words that a function takes, of the kinds that it declares."""
    from miewid_core.runs.notebooks import typed

    taken = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in words:
            kind = parameter.annotation
            plain = kind.__name__ if kind in (str, int, float, bool) else "list"
            taken[name] = typed(name, words[name], plain)
    return taken


def _add_identify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", help="of unidentified animals: a folder, or a CSV with boxes")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help=f"{WORDS} FINAL=true")
    parser.add_argument("--catalog", required=True, help="known animals: a CSV, JSON, or folder")
    parser.add_argument("--weights", default="", help="the network; trained on the catalog if none")
    parser.add_argument("-o", "--output", default="review", help="folder of the review page")
    parser.set_defaults(run=_identify)


def _identify(given: argparse.Namespace, rest: list[str]) -> None:
    from miewid_core.beyond_paper import identify
    from miewid_core.paper.study import open_study
    from miewid_core.runs.notebooks import parse

    words = {"on_problem": "drop"} | parse(_words(given, rest))
    words |= {"catalog": given.catalog, "weights": given.weights, "figures_dir": given.output}
    _refuse_unknown(words, open_study, identify.write_review)
    opened = _taken(words, open_study)
    where = {name: opened[name] for name in identify.WHERE if name in opened}
    asked = _taken(words, identify.write_review) | where
    told = identify.write_review(open_study(**opened), given.photos, **asked)
    sys.stdout.write(f"{told}\n")


def _add_train(parser: argparse.ArgumentParser) -> None:
    words = f"{WORDS}; LEFT_OUT=species for the leave-one-out network of a species"
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help=words)
    parser.set_defaults(run=_train)


def _train(given: argparse.Namespace, rest: list[str]) -> None:
    from miewid_core.paper.study import open_study
    from miewid_core.runs import multi_gpu
    from miewid_core.runs.notebooks import parse

    if "RANK" not in os.environ:
        raise ValueError("start it with torchrun --nproc_per_node=4 -m miewid_core train ...")
    words = parse(_words(given, rest))
    left_out = words.pop("left_out", "")
    _refuse_unknown(words, open_study)
    with multi_gpu.joined() as first:
        if first:
            study = open_study(**_taken(words, open_study))
            training = study.left_out([left_out])[left_out] if left_out else study.multi()
            title = f"{training.title}, shared by {multi_gpu.count()}"
            run = dataclasses.replace(training, title=title).run()
            sys.stdout.write(f"{run.folder}\n")


def _add_repeat(parser: argparse.ArgumentParser) -> None:
    parser.description += " Exit status: 0 equal, 1 not equal, 2 not done."
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="a folder of .cache/runs")
    parser.add_argument("--chips", type=Path, default=CACHE / "chips", help="where its chips lie")
    parser.add_argument("--catalog", default="", help="to make chips from that are missing there")
    parser.add_argument("--photos-dir", default="", help="where the catalog's photos lie")
    parser.add_argument("--absolute-paths", action="store_true", help="take those of the catalog")
    parser.add_argument("--species", default="", help="of the catalog's rows that have none")
    parser.add_argument("--pretrained", default="", help="the weights file it began with, if any")
    parser.add_argument("--into", type=Path, help="keep the repetition here; resumes a stopped one")
    parser.set_defaults(run=_repeat)


def _repeat(given: argparse.Namespace, rest: list[str]) -> None:
    from miewid_core.readers.load import load_catalog
    from miewid_core.runs import repeat
    from miewid_core.runs.run import Run

    if rest:
        raise ValueError(f"{' '.join(rest)} is none of its arguments; --help lists them")
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


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_bench)


def _bench(given: argparse.Namespace, rest: list[str]) -> None:
    from miewid_core.bench import harness

    harness.main(rest)


COMMANDS = {
    "figures": ("run the notebooks; tables and figures go to figures/<data>/", _add_figures),
    "refresh": ("rewrite the committed notebooks, executed on the demo data", _add_refresh),
    "verify": ("compare the tables in figures/<data>/ with the committed ones", _add_verify),
    "plan": ("what would be trained for the notebooks, and how long it would take", _add_plan),
    "identify": ("a page on which photos of unidentified animals are named", _add_identify),
    "train": (
        "one training shared by the GPUs of this computer; start it with torchrun",
        _add_train,
    ),
    "repeat": ("train a finished run again and compare the weights bit by bit", _add_repeat),
    "bench": ("measure the comparisons of notebook 13 in full", _add_bench),
}

if __name__ == "__main__":
    main()
