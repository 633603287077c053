"""Which network identifies a reader's animals: the weights they name, or one trained here."""

import dataclasses
from pathlib import Path

import pandas as pd

from miewid_core import identify, threshold
from miewid_core.study import Study, open_study

LEAST = 10  # individuals below which a network isn't trained on a catalog


@dataclasses.dataclass(frozen=True)
class Network:
    """A weights file with photos that it hasn't learned from, and `words` on what it is.

    `validation`: photos of individuals to choose a threshold on, none where there are too few.
    `tested`: photos to measure on, none of an individual in `validation`.
    """

    weights: Path
    validation: pd.DataFrame
    tested: pd.DataFrame
    words: str


def choose(study: Study, weights: str = "", false_matches: float = 0.0) -> Network:
    """The network of a file `weights`, or else one trained on the study's training photos.

    `false_matches`: the rate to choose a threshold at; 0 for none. A network trained here doesn't
    learn the validation individuals that this needs, where enough can be spared. From a catalog of
    fewer than LEAST training individuals no network is trained: the preset's pretrained one serves
    as it is, or the demo's. Raises ValueError where `weights` is no file.
    """
    if weights and not Path(weights).is_file():
        raise ValueError(f"weights: there is no file {weights}")
    rest, validation = threshold.carve(study.train, study.test, false_matches, study.seed)
    tested = study.test
    if tested.empty:
        tested = identify.one_an_encounter(study.photos, study.seed)
        several = tested["individual"][tested["individual"].duplicated()]  # these can be found
        rest, validation = rest[~rest["individual"].isin(several)], validation[:0]
    if weights:
        words = f"the weights in `{Path(weights).name}`. Whether they learned some of these animals"
        return Network(Path(weights), validation, tested, f"{words} already, can't be seen here.")
    run, words = _trained(study, rest)
    return Network(run.weights, validation, tested, words)


def _trained(study: Study, rows: pd.DataFrame) -> tuple:
    """A run, and in words what it learned."""
    individuals = rows["individual"].nunique()
    if individuals >= LEAST:
        run = study.trained(rows, "your animals")
        return run, f"trained here, on {len(rows):,} photos of {individuals} individuals."
    few = f"{individuals} individuals to train on are too few"
    if study.config.pretrained:
        run = study.trained(study.photos, "as it came", epochs=0)
        return run, f"as its pretraining left it: {few}. Better give `weights`, such as MiewID's."
    run = open_study(runs_dir=str(study.runs_dir)).multi_species()
    words = "the demo's, which knows drawn animals only: it serves to try this notebook out. "
    return run, f"{words}{few}; give `weights`, such as the released MiewID's."
