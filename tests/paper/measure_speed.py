"""What frozen stages and bfloat16 buy on a CPU: `measure_speed.py CATALOG WEIGHTS`.

CATALOG lists the eleven public species (miewid_core/paper/cards/real_photos.md), WEIGHTS is
EfficientNet-Lite0 trained on ImageNet. Trains a network of each number of frozen stages on the
split of seed 1, which decides nothing else, and embeds the test photos by each in float32 and in
bfloat16. Puts a row each into figures/realdata/speed.csv: photos that a second of processor time
trains and embeds, and top-1 in percent, the mean over species. It takes half an hour.
"""

import argparse
import time

import pandas as pd

from miewid_core import compare, evaluation, open_study
from miewid_core.bench.measuring import here_and_now, write
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.files import ROOT

TABLE = ROOT / "figures" / "realdata" / "speed.csv"
SPLIT_SEED, PIXELS, EPOCHS, FROZEN = 1, 96, 4, (0, 4)


def trained(training):
    """Photos a processor second of this training, which must not be there yet."""
    if training.finished:
        raise SystemExit(f"{training.folder} is there already: give an empty MIEWID_CACHE")
    start = time.process_time()
    training.run()
    return training.photos / (time.process_time() - start)


def embedded(study, training, half):
    """Photos a processor second, and top-1 in percent with its interval, by a network."""
    store = ChipStore(study.chips_dir, PIXELS)
    chips = ChipDataset(store, store.build(study.test).tolist())
    evaluation.bfloat16_pays = lambda *_: half
    start = time.process_time()
    vectors = evaluation.embed(*training.result.load(), chips)
    rate = len(chips) / (time.process_time() - start)
    mean = compare({"top1": study.rank(vectors)}).iloc[-1]
    return {"embedded_a_second": rate} | mean[["top1", "top1_low", "top1_high"]].to_dict()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalog")
    parser.add_argument("weights")
    given = parser.parse_args()
    settings = {"image_size": PIXELS, "epochs": EPOCHS, "seed": SPLIT_SEED, "sides_differ": "nyala"}
    study = open_study(given.catalog, "compact", pretrained=given.weights, **settings)
    rows = []
    ChipStore(study.chips_dir, PIXELS).build(study.annotations)  # none is cut while time is taken
    for stages in FROZEN:
        training = study.training(study.train, f"{stages} frozen", frozen_stages=stages)
        row = {"frozen_stages": stages, "trained_a_second": trained(training)}
        for half in (False, True):
            row |= {"embedded_in": "bfloat16" if half else "float32"}
            rows.append(row | embedded(study, training, half) | here_and_now())
            write(pd.DataFrame(rows).round(2), TABLE)
