"""The network that identifies: given by its weights, or trained; measured, or final."""

import dataclasses
from pathlib import Path

import pandas as pd

from miewid_core import model
from miewid_core.beyond_paper.identify.embeddings import Embeddings, embed
from miewid_core.beyond_paper.identify.queries import one_an_encounter
from miewid_core.chips import ChipStore
from miewid_core.figures import spelt
from miewid_core.files import file_digest
from miewid_core.paper.comparison import compare, no_better
from miewid_core.paper.study import Study, open_study
from miewid_core.readers.weights import load_model, weights_file
from miewid_core.runs.run import Run, Training

MEASURED, FINAL = "measured network", "final network"  # what a network identifies as
UNKNOWN = (
    "Nothing says which animals these weights learned. If yours are among them, success and "
    "threshold look better than they will be for new ones."
)
LEAST = 10  # individuals below which a network isn't trained on a catalog


@dataclasses.dataclass(frozen=True)
class Network:
    """A weights file, photos `tested` that it hasn't learned from, and `words` on what it is.

    `learned`: the individuals that it was trained on, as far as that is known. `role`: MEASURED, or
    FINAL, which has learned all known photos, so that nothing can be measured of it.
    """

    weights: Path
    chips_dir: Path
    tested: pd.DataFrame
    learned: frozenset[str]
    words: str
    role: str = MEASURED

    def embed(self, annotations: pd.DataFrame) -> Embeddings:
        """Embeddings of catalog rows, kept on disk."""
        return embed(self.weights, annotations, self.chips_dir)


def choose(study: Study, weights: str = "") -> Network:
    """The network of a file `weights`, or else one trained on the study's training photos.

    A run's rows.csv beside the weights tells what they learned. Where that is none of these
    individuals, or isn't known, one photo of each encounter is tested. From a catalog of fewer than
    LEAST training individuals no network is trained: the preset's pretrained one serves as it is,
    or the demo's. Raises ValueError where `weights` is no file.
    """
    if weights:
        return _of_file(study, weights_file(weights))
    tested, rest = study.test, study.train
    if tested.empty:
        tested = one_an_encounter(study.annotations, study.seed)
        several = tested["individual"][tested["individual"].duplicated()]  # these can be found
        rest = rest[~rest["individual"].isin(several)]
    return _trained(study, rest, tested)


def subtitle(study: Study, weights: str = "") -> str:
    """What figures and the page carry: the data and the measured network, as given to `choose`."""
    return f"{study.data}, {Path(weights).name}" if weights else study.subtitle


def _of_file(study: Study, weights: Path) -> Network:
    """The network of a weights file, tested on photos of sightings that it didn't learn."""
    if not weights.is_file():
        raise ValueError(f"weights: there is no file {weights}")
    annotations, rows = study.annotations, weights.with_name("rows.csv")
    words = f"the weights in `{weights.name}`."
    if not rows.is_file():
        words += f" {UNKNOWN}"
        tested = one_an_encounter(annotations, study.seed)
        return Network(weights, study.chips_dir, tested, frozenset(), words)
    rows = pd.read_csv(rows, dtype=str, keep_default_na=False)
    keys = ChipStore(study.chips_dir, load_model(weights)[1].size).keys(annotations)
    shown = keys.isin(rows["chip"])  # learned, whatever the animal is called there
    people = annotations["individual"]
    learned = frozenset(people[shown | people.isin(rows["individual"])])
    encounters = people + " " + annotations["encounter"]
    met = (annotations["encounter"] != "") & encounters.isin(encounters[shown])
    fresh = annotations[~shown & ~met]
    tested = study.test
    untouched = tested["annotation_id"].isin(fresh["annotation_id"]).all()
    if not learned or tested.empty or not untouched:
        tested = one_an_encounter(fresh, study.seed)
    words += f" Their run says: they learned {len(learned):,} of {people.nunique():,} individuals."
    return Network(weights, study.chips_dir, tested, learned, words)


def asked(study: Study) -> list[Training]:
    """The training that `choose` needs, if it trains: the one for all species."""
    enough = study.train["individual"].nunique() >= LEAST
    return [study.training(study.train, "your animals")] if enough else []


def _trained(study: Study, rows: pd.DataFrame, tested: pd.DataFrame) -> Network:
    """The network trained on `rows`, or what stands in for it where they are too few."""
    individuals, learned = rows["individual"].nunique(), frozenset()
    few = f"{individuals} individuals to train on are too few"
    if individuals >= LEAST:
        training = study.training(rows, "your animals")
        learned = frozenset(rows["individual"])
        words = f"trained on {len(rows):,} photos of {individuals} of your individuals."
    elif study.config.pretrained:
        training = study.training(study.annotations, "as it came", epochs=0)
        words = f"as its pretraining left it: {few}. Better give `weights`, such as MiewID's."
    else:
        training = open_study(runs_dir=str(study.runs_dir)).multi()
        words = (
            "the demo's, which knows drawn animals only: it serves to try this notebook out. "
            f"{few}; give `weights`, such as the released MiewID's."
        )
    weights = study.run([training])[0].weights
    if learned:
        networks = {"multi": training, "untrained": study.training(rows, "untrained", epochs=0)}
        ranks = {n: study.rank(study.embeddings(of, tested), tested) for n, of in networks.items()}
        if lost := no_better(compare(ranks), "multi"):
            names = ", ".join(map(spelt, lost))
            words += f" **The training did not help to identify {names}.**"
    return Network(weights, study.chips_dir, tested, learned, words)


def final_network(
    study: Study, measured: Network, known: pd.DataFrame, weights: str = "", scores: str = ""
) -> Network:
    """The network that identifies when another was `measured`: trained on all `known` photos.

    With `weights`, as given to `choose`, it fine-tunes their network (section 5.5) by
    `config.fine_tuning`. From fewer than LEAST individuals none is trained, and `measured` serves.
    Raises ValueError with another matcher's `scores`: what calibrates them has been learned.
    """
    people = known["individual"].nunique()
    if people < LEAST:
        return dataclasses.replace(
            measured, words=f"the measured one: {people} individuals are too few to train another."
        )
    if scores:
        raise ValueError("scores aren't calibrated for a final network: leave out scores or final")
    given = _as_run(measured.weights, study.runs_dir) if weights else {}
    training = study.training(known, "your animals, all known photos", **given)
    words = f"trained on all {len(known):,} known photos of {people} individuals"
    if weights:
        words += f", fine-tuned from `{Path(weights).name}`, whose licence holds for it too"
    words += (
        ". Accuracy, threshold and probabilities are the measured network's: none can be measured "
        "of this one, which has learned every photo whose animal is known."
    )
    path, learned = study.run([training])[0].weights, frozenset(known["individual"])
    return Network(path, study.chips_dir, known[:0], learned, words, FINAL)


def _as_run(weights: Path, runs_dir: Path) -> dict[str, object]:
    """What `Study.training` takes to go on from a weights file: start, backbone and image_size.

    The file is kept in `runs_dir` as a training of no epoch.
    """
    network, preprocess = load_model(weights)
    shape = {"backbone": network.name, "image_size": preprocess.size}
    run = Run(runs_dir / f"given-{file_digest(weights)[:16]}")
    if not run.finished:
        model.save(network, preprocess, run.folder / "weights.safetensors")
        for name, columns in (("history", "epoch,loss,rate"), ("rows", "annotation_id,individual")):
            (run.folder / f"{name}.csv").write_text(f"{columns}\n")
        run.write_record({"config": shape | {"epochs": 0}}, weights.name, 0.0)
    return shape | {"start": run}
