"""One training over a computer's GPUs: `torchrun --nproc_per_node=4 -m miewid_core.distributed`.

Trains the network of all species, or with LEFT_OUT=species that of all others, for the parameters
that the notebooks have, such as CATALOG=photos.csv PRESET=paper; they find it as their own.
"""

import argparse
import dataclasses
import sys

from miewid_core.paper.study import open_study
from miewid_core.runs import multi_gpu
from miewid_core.runs.notebooks import parse
from miewid_core.runs.run import Run


def train(parameters: dict[str, object]) -> Run:
    """Train what the parameters of `main` name. Raises ValueError."""
    left_out = str(parameters.pop("left_out", ""))
    study = open_study(parameters.pop("catalog", "demo"), **parameters)
    job = study.leave_one_out_jobs([left_out])[left_out] if left_out else study.multi_species_job()
    title = f"{job.title}, shared by {multi_gpu.count()}"
    return dataclasses.replace(job, title=title).train(study.runs_dir, study.chips_dir)


def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="miewid_core.distributed", description=__doc__)
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="such as SEED=1")
    words = parser.parse_args(arguments).parameters
    try:
        run = multi_gpu.lead_or_serve(lambda: train(parse(words)))
    except (ValueError, TypeError) as error:
        parser.error(str(error))  # torchrun ends the others
    if run is not None:
        sys.stdout.write(f"{run.folder}\n")


if __name__ == "__main__":
    main()
