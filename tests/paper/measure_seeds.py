"""How far the demo's numbers hold on other seeds: `python tests/paper/measure_seeds.py`.

Adds rows to figures/statistics/demo_seeds.csv: top-1 of each species by the networks that ASKED
names, with the split's and the training's seed, and the instructions by which this processor
rounds. Takes 35 CPU seconds a training, and 36 + 5 + 12 trainings; `--part` chooses. Those of
other instructions need a cache of their own, as equal trainings share a folder:

    MIEWID_CACHE=other ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \\
        python tests/paper/measure_seeds.py --part further
"""

import argparse

import pandas as pd

from miewid_core import open_study
from miewid_core.evaluation import top_k
from miewid_core.files import ROOT, replacing
from miewid_core.runs.run import versions

TABLE = ROOT / "figures" / "statistics" / "demo_seeds.csv"
KEYS = ["part", "instructions", "split_seed", "training_seed", "network", "species"]
SPLITS = (1, 2, 3)  # other than the final one, 0
ASKED = {  # part: seeds of splits, seeds of the multi-species network's trainings, the others too?
    "matched": (SPLITS, (0,), True),
    "committed": ((0,), range(5), True),
    "further": ((0,), range(5, 10), False),
    "spread": (SPLITS, range(1, 4), False),
}


def measured(study, network, seed, trainings):
    """A row for each species that `trainings` (one, or one a species) can be tested on."""
    ranks = study.ranks(trainings)
    facts = {"instructions": versions()["instructions"], "split_seed": study.seed}
    facts |= {"training_seed": seed, "network": network}
    return [
        facts
        | {"species": species, "queries": int(own["relevant"].gt(0).sum())}
        | {"top1": round(100 * top_k(own, 1), 4)}
        for species, own in ranks.groupby("species")
    ]


def measure(part):
    """All rows of a part of ASKED, one training after the other; each is kept as it ends."""
    splits, seeds, others = ASKED[part]
    for split_seed in splits:
        study = open_study(seed=split_seed)
        for seed in seeds:
            keep(part, measured(study, "multi-species", seed, study.multi(seed)))
        if others:
            keep(part, measured(study, "untrained", 0, study.untrained()))
            for species, training in study.single(matched=True).items():
                training.run()
                name = "single-species, equal steps"
                keep(part, measured(study, name, 0, {species: training}))


def keep(part, rows):
    """Put rows into TABLE, in the place of earlier ones of the same training."""
    new = pd.DataFrame(rows).assign(part=part)
    old = [pd.read_csv(TABLE)] if TABLE.exists() else []
    table = pd.concat([*old, new]).drop_duplicates(KEYS, keep="last").sort_values(KEYS)
    with replacing(TABLE) as temporary:
        table[[*KEYS, "queries", "top1"]].to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=[*ASKED], nargs="*", default=[*ASKED])
    for chosen in parser.parse_args().part:
        measure(chosen)
