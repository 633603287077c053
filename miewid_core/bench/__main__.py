"""Measures in full, into figures/performance: `python -m miewid_core.bench [TASK ...]`."""

import argparse
import sys

from miewid_core.bench import harness, tasks


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m miewid_core.bench", description=__doc__)
    parser.add_argument("task", nargs="*", metavar="TASK", help=f"of {', '.join(tasks.TASKS)}")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way (3)")
    parser.add_argument("--again", action="store_true", help="also what was measured before")
    given = parser.parse_args(arguments)
    strange = sorted(set(given.task) - set(tasks.TASKS))
    if strange:
        parser.error(f"no task {', '.join(strange)}; there are {', '.join(tasks.TASKS)}")
    for name in given.task or tasks.TASKS:
        path = tasks.FOLDER / f"{name}.csv"
        if given.again:
            path.unlink(missing_ok=True)
        if name != "startup":
            tasks.agreement(name)
        measured = tasks.measure(name, "full", given.rounds, path)
        if measured.empty:
            sys.stdout.write(f"{name}: not measured here: no GPU\n\n")
            continue
        table = measured if name == "startup" else harness.summary(measured)
        sys.stdout.write(f"{name}\n{table.round(3).to_string(index=False)}\n\n")


if __name__ == "__main__":
    main()
