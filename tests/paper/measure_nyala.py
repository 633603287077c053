"""What may bring nyala nearer to the paper's number: `python tests/paper/measure_nyala.py CATALOG`.

CATALOG lists the eleven public species (miewid_core/paper/cards/real_photos.md), WEIGHTS is
EfficientNet-Lite0 trained on ImageNet. Trains one network a step on the split of seed 1, which
decides nothing else, and puts its top-1 of nyala into figures/realdata/nyala_ladder.csv. A step
takes 250 CPU seconds, at 160 pixels thrice, at 224 six times that; `--step` chooses some.
"""

import argparse

import pandas as pd
from sklearn.preprocessing import normalize

from miewid_core import compare, open_study
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.evaluation import embed
from miewid_core.files import ROOT, replacing

TABLE = ROOT / "figures" / "realdata" / "nyala_ladder.csv"
SPECIES = "nyala"
SPLIT_SEED, PIXELS, EPOCHS = 1, 96, 4
MULTI = "multi"  # the network of all eleven species
STEPS = {  # step: how the study differs, its network, whether queries are mirrored as well
    "split by side": ({"sides_differ": SPECIES}, MULTI, False),
    "not split by side": ({}, MULTI, False),
    "nyala alone, equal epochs": ({}, "single", False),
    "nyala alone, equal steps": ({}, "matched", False),
    "the released schedule": ({}, "released", False),
    "twice the epochs": ({"epochs": 2 * EPOCHS}, MULTI, False),
    "mirrored photos as well, twice the epochs": ({"epochs": 2 * EPOCHS}, MULTI, True),
    "160 px": ({"image_size": 160}, MULTI, False),
    "224 px": ({"image_size": 224}, MULTI, False),
}


class Mirrored(ChipDataset):
    """The chips, left and right exchanged."""

    def __getitem__(self, place):
        chip, label = super().__getitem__(place)
        return chip.flip(1), label


def networks(study):
    """Trainings by name, not run yet."""
    return {
        MULTI: study.multi(),
        "single": study.single([SPECIES])[SPECIES],
        "matched": study.single([SPECIES], matched=True)[SPECIES],
        "released": study.training(study.train, "released schedule", schedule="released"),
    }


def measured(step, catalog, weights):
    """The row of a step: top-1 of nyala in percent, its interval, and the halves of section 3.3."""
    changes, name, mirrored = STEPS[step]
    settings = {"image_size": PIXELS, "epochs": EPOCHS, "seed": SPLIT_SEED, "pretrained": weights}
    study = open_study(catalog, "compact", **settings | changes)
    rows = study.test[study.test["species"] == SPECIES].reset_index(drop=True)
    training = networks(study)[name]
    vectors = normalize(study.embeddings(training, rows))
    if mirrored:
        store = ChipStore(study.chips_dir, training.config.image_size)
        chips = Mirrored(store, store.build(rows).tolist())
        vectors = vectors + normalize(embed(*training.result.load(), chips))
    found = compare({"top1": study.rank(vectors, rows)}, study.train).iloc[0]
    shown = ["queries", "individuals", "top1", "top1_low", "top1_high", "top1_seen", "top1_new"]
    return {"step": step} | found[shown].to_dict()


def keep(row):
    """Put a row into TABLE, in the place of an earlier one of its step."""
    old = pd.read_csv(TABLE).set_index("step").to_dict("index") if TABLE.exists() else {}
    rows = old | {row.pop("step"): row}
    table = pd.DataFrame([{"step": name} | rows[name] for name in STEPS if name in rows])
    with replacing(TABLE) as temporary:
        table.round(2).to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalog")
    parser.add_argument("weights")
    parser.add_argument("--step", choices=[*STEPS], nargs="*", default=[*STEPS])
    given = parser.parse_args()
    for chosen in given.step:
        keep(measured(chosen, given.catalog, given.weights))
