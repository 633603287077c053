"""One training over a computer's GPUs: `torchrun --nproc_per_node=4 -m miewid_core.distributed`.

Trains the network of all species, or with LEFT_OUT=species that of all others, for the parameters
that the notebooks have, such as CATALOG=photos.csv PRESET=paper; they find it as their own.
"""

import argparse
import dataclasses
import os
import sys

import torch.distributed as dist

from miewid_core.paper.study import open_study
from miewid_core.runs import multi_gpu
from miewid_core.runs.notebooks import parse
from miewid_core.runs.run import Run
from miewid_core.training import fit


def train(parameters: dict[str, object]) -> Run:
    """Train what the parameters of `main` name, with those who `serve`. Raises ValueError."""
    left_out = str(parameters.pop("left_out", ""))
    study = open_study(parameters.pop("catalog", "demo"), **parameters)
    job = study.leave_one_out_jobs([left_out])[left_out] if left_out else study.multi_species_job()
    title = f"{job.title}, shared by {multi_gpu.count()}"
    return dataclasses.replace(job, title=title).train(study.runs_dir, study.chips_dir)


def serve() -> None:
    """Share the trainings that the first process begins, until it says that there are no more."""
    while (given := multi_gpu.listen()) is not None:
        fit(*given)


def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="miewid_core.distributed", description=__doc__)
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="such as SEED=1")
    words = parser.parse_args(arguments).parameters
    if "RANK" not in os.environ:
        parser.error("start it with torchrun --nproc_per_node=4 -m miewid_core.distributed ...")
    multi_gpu.join()
    if multi_gpu.rank() > 0:
        serve()
    else:
        try:
            run = train(parse(words))
        except (ValueError, TypeError) as error:
            parser.error(str(error))  # torchrun ends the others
        multi_gpu.announce(None)
        sys.stdout.write(f"{run.folder}\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
