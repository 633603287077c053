"""What a notebook works on: a catalog, its split, a configuration, and where results go."""

import dataclasses
import inspect
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd

from miewid_core import figures, splits
from miewid_core.chips import ChipStore
from miewid_core.config import PRESETS, TrainConfig, fine_tuning
from miewid_core.config import preset as training_preset
from miewid_core.demo import SIDES_DIFFER, draw_animals
from miewid_core.evaluation import one_vs_all
from miewid_core.files import ABOUT, CACHE, FIGURES, digest, replacing
from miewid_core.model import opened
from miewid_core.readers.load import load_catalog
from miewid_core.runs import bill
from miewid_core.runs.run import Run, Training, kept_vectors

DEMO = "demo"  # the source that names the drawn animals
ADDRESS = re.compile(r"(tcp|tls|ucx|ucxx|wss?)://[^\s/]+:\d+")  # of a Dask scheduler


@dataclasses.dataclass(frozen=True)
class Study:
    """A catalog split by section 3.3, and the trainings and rankings that notebooks share.

    `name`: of the data, in titles. `drawn`: whether they are the drawn animals. `train` and `test`
    are the rows of `annotations` in those parts of the split. `seed` is the split's; trainings have
    seeds of their own. `scheduler`: address of a Dask scheduler, "" for none. `used`: names of the
    folders of all trainings it ran, for the manifest of the figures.
    """

    name: str
    drawn: bool
    annotations: pd.DataFrame
    split: pd.DataFrame
    train: pd.DataFrame
    test: pd.DataFrame
    config: TrainConfig
    seed: int
    figures_dir: Path
    runs_dir: Path
    chips_dir: Path
    scheduler: str = ""
    used: set[str] = dataclasses.field(default_factory=set, repr=False, compare=False)

    @property
    def label(self) -> str:
        """Words for titles: what the numbers were measured on."""
        drawn = " (drawn animals: shows the method, proves no claim)"
        return self.name + drawn * self.drawn

    def require(self, species: int = 1) -> None:
        """End the notebook in a sentence where fewer species can be trained and tested on."""
        able = set(self.train["species"]) & set(self.test["species"])
        if len(able) < species:
            from miewid_core.runs.notebooks import skip_rest  # seldom

            has = f"the catalog has {len(able)} ({', '.join(sorted(able)) or 'none'})"
            skip_rest(
                f"this notebook needs {species} species with individuals to train on and to test, "
                f"and {has}. A species needs an individual with three photos to train on, and one "
                "with photos of two encounters to test."
            )

    @property
    def data(self) -> str:
        """What figures without a network carry: the data's name."""
        return "DRAWN ANIMALS" if self.drawn else self.name

    @property
    def subtitle(self) -> str:
        """What other figures carry: the data, the preset's network, pixels and epochs."""
        config, several = self.config, "s" * (self.config.epochs != 1)
        epochs = f"{config.epochs} epoch{several}"
        return f"{self.data}, {config.backbone}, {config.image_size} px, {epochs}"

    def by_date(self) -> "Study":
        """The same annotations, of which earlier days train and later ones are tested."""
        from miewid_core.paper.date_split import by_date  # for one notebook

        split = splits.split(self.annotations, self.seed, by_date)
        train, test = (splits.rows(self.annotations, split, part) for part in ("train", "test"))
        return dataclasses.replace(self, split=split, train=train, test=test)

    def settings(self) -> pd.DataFrame:
        """The training's whole configuration beside appendix A.1's: setting, here, paper."""
        ours, theirs = (dataclasses.asdict(config) for config in (self.config, PRESETS["paper"]))
        if self.config.schedule == "level":
            ours |= {"warmup_epochs": "not used", "decay": "not used"}
        if Path(str(ours["pretrained"])).is_file():  # a name says enough: no reader's folders
            ours["pretrained"] = Path(ours["pretrained"]).name
        rows = [(name, str(ours[name]), str(theirs[name])) for name in ours]
        return pd.DataFrame(rows, columns=["setting", "here", "paper"])

    def training(
        self,
        rows: pd.DataFrame,
        title: str,
        start: Training | None = None,
        seed: int = 0,
        **changes: object,
    ) -> Training:
        """A training on `rows` with `seed`, and some fields of the configuration changed.

        With `start` it fine-tunes the network of that training (section 5.5).
        """
        config = self.config if start is None else fine_tuning(self.config)
        config = dataclasses.replace(config, **changes)
        return Training(title, rows, config, seed, self.runs_dir, self.chips_dir, start)

    def multi(self, seed: int = 0) -> Training:
        """The multi-species network (section 5.1)."""
        return self.training(self.train, "all species", seed=seed)

    def untrained(self) -> Training:
        """The network as it is before any training."""
        return self.training(self.train, "untrained", epochs=0)

    def multi_seeds(self, count: int = 0) -> list[Training]:
        """Trainings of the multi-species network: `count`, or five on the demo and three else."""
        return [self.multi(seed) for seed in range(count or (5 if self.drawn else 3))]

    def single(self, species: Sequence[str] = (), matched: bool = False) -> dict[str, Training]:
        """A single-species network for each of `species` (all with training data).

        It trains for the epochs of the multi-species network, as in the paper; `matched`: for its
        steps, each epoch showing as many photos.
        """
        changes = {"epoch_photos": len(self.train)} if matched else {}
        title, trained = "{} alone" + ", equal steps" * matched, self.train["species"]
        return {
            own: self.training(self.train[trained == own], title.format(own), **changes)
            for own in _some_of(trained, species, "trained")
        }

    def left_out(self, species: Sequence[str] = ()) -> dict[str, Training]:
        """A leave-one-out network for each of `species` (all tested ones) (section 5.2)."""
        trained = self.train["species"]
        return {
            own: self.training(self.train[trained != own], f"all but {own}")
            for own in _some_of(self.test["species"], species, "tested")
        }

    def run(self, trainings: Sequence[Training]) -> list[Run]:
        """The finished runs of `trainings`; what is not trained yet is trained, side by side."""
        self.used.update(training.folder.name for training in trainings)
        if all(training.finished for training in trainings):
            return [training.result for training in trainings]
        from miewid_core.runs.jobs import train_all, workers_of  # not for what is trained already

        with workers_of(self.scheduler) as executor:
            return train_all(trainings, executor)

    def bill(self, trainings: Sequence[Training]) -> str:
        """How many of these trainings are still to be done, and how long they take, in words."""
        return bill.in_words(bill.summary({"": trainings}, self.config))

    def embeddings(self, training: Training, rows: pd.DataFrame | None = None) -> np.ndarray:
        """Embeddings (N, D) float32 of `rows` (the test annotations) by a network, kept on disk."""
        run = self.run([training])[0]
        store = ChipStore(self.chips_dir, training.config.image_size)
        rows = self.test if rows is None else rows
        return kept_vectors(run.weights_digest, run.load, store, rows, self.runs_dir / "embeddings")

    def ranks(self, trainings: Training | Mapping[str, Training]) -> pd.DataFrame:
        """One row per query: the test annotations ranked by a network (section 3.4).

        Of a mapping each species is ranked by its own network; the others have no rows.
        """
        if isinstance(trainings, Training):
            return self.rank(self.embeddings(trainings))
        tested = dict(list(self.test.groupby("species")))
        rows = {own: tested[own].reset_index(drop=True) for own in trainings if own in tested}
        self.run([trainings[own] for own in rows])  # side by side
        parts = (self.rank(self.embeddings(trainings[own], of), of) for own, of in rows.items())
        return pd.concat(parts, ignore_index=True)

    def rank(self, embeddings: np.ndarray, rows: pd.DataFrame | None = None) -> pd.DataFrame:
        """One row per query of `rows` (the test annotations), ranked by their embeddings (N, D)."""
        rows = self.test if rows is None else rows
        labels = [rows[name] for name in ("individual", "species", "encounter", "annotation_id")]
        return one_vs_all(embeddings, *labels)

    def save(
        self, name: str, table: pd.DataFrame, figure: matplotlib.figure.Figure | None = None
    ) -> None:
        """Write a table, or a figure with the table that it draws, into the study's figures."""
        self.note(*figures.save(table, name, self.figures_dir, figure))

    def save_photos(self, name: str, figure: figures.Figure) -> None:
        """Write a sheet of photos into the study's figures, in a folder of their own.

        Git ignores it but for the drawn animals': photos are their owners' to publish.
        """
        with replacing(self.figures_dir / "photos" / f"{name}.jpg") as temporary:
            temporary.write_bytes(figure.jpeg(figure.dpi, 85))
        self.note(f"photos/{name}.jpg")

    def note(self, *names: str) -> None:
        """Note files of the study's figures in their manifest, if the runner runs this notebook."""
        if ABOUT in os.environ:
            from miewid_core.runs import manifest

            manifest.note(self.figures_dir, names, self.used)


def open_study(
    catalog: str = DEMO,
    preset: str = "demo",
    sides_differ: Sequence[str] | str = (),
    pretrained: str = "",
    image_size: int = 0,
    epochs: int = 0,
    figures_dir: str = "",
    runs_dir: str = "",
    seed: int = 0,
    on_problem: str = "raise",
    scheduler: str = "",
    photos_dir: str = "",
    absolute_paths: bool = False,
    species: str = "",
) -> Study:
    """Read and split the catalog that a notebook's parameters name; empty ones mean the default.

    `catalog`: "demo" for the drawn animals, or what `load_catalog` reads, as `photos_dir`,
    `absolute_paths`, `species` and `on_problem` say. `sides_differ`: species whose sides are
    different individuals, as a list or separated by commas. `pretrained`: a weights file in place
    of the preset's own. `scheduler`: address of the Dask scheduler whose workers train ("" for this
    computer). Raises ValueError (CatalogError for the photos) naming what to mend.
    """
    drawn = isinstance(catalog, str) and catalog == DEMO
    catalog, photos_dir, species = map(_text, (catalog, photos_dir, species))
    changes = {"pretrained": pretrained, "image_size": image_size, "epochs": epochs}
    config = training_preset(preset, **{key: value for key, value in changes.items() if value})
    _refuse_weights(config.pretrained)
    if scheduler != "" and not (isinstance(scheduler, str) and ADDRESS.fullmatch(scheduler)):
        raise ValueError(f'scheduler is {scheduler!r}; give an address such as "tcp://host:8786"')
    folders = (
        _folder("figures_dir", figures_dir, figures_folder(catalog)),
        _folder("runs_dir", runs_dir, CACHE / "runs"),
        _folder("chips_dir", "", CACHE / "chips"),
    )
    annotations = load_catalog(
        draw_animals(CACHE / "demo") if drawn else catalog,
        sides_differ=_listed(sides_differ) or (SIDES_DIFFER if drawn else ()),
        on_problem=on_problem,
        photos_dir=photos_dir,
        absolute_paths=absolute_paths,
        species=species,
    )
    split = splits.split(annotations, seed)
    parts = (splits.rows(annotations, split, part) for part in ("train", "test"))
    name = _named(catalog)[0]
    return Study(name, drawn, annotations, split, *parts, config, seed, *folders, scheduler)


def parameters(names: Mapping[str, object]) -> dict[str, object]:
    """Those of a notebook's names (its `globals()`) that are parameters of `open_study`."""
    return {name: names[name] for name in inspect.signature(open_study).parameters if name in names}


def figures_folder(catalog: object) -> Path:
    """Where a catalog's figures go unless another folder is named."""
    return FIGURES / _named(catalog)[1]


def _named(catalog: object) -> tuple[str, str]:
    """A catalog's name in titles, and its folder of figures: another catalog's is another one."""
    if isinstance(catalog, str) and catalog == DEMO:
        return DEMO, DEMO
    place = catalog.root if hasattr(catalog, "df") else catalog
    path = Path(str(place)).expanduser().resolve()
    name = (path if path.is_dir() else path.parent).name
    return name, f"{name}-{digest(str(path))[:6]}"


def _text(value: object) -> object:
    """A folder called 2024, which papermill takes for a number."""
    return str(value) if isinstance(value, int | float) else value


def _listed(words: Sequence[str] | str) -> Sequence[str]:
    """A list, or one written with commas."""
    if not isinstance(words, str):
        return words
    return [word.strip() for word in words.split(",") if word.strip()]


def _some_of(every: pd.Series, wanted: Sequence[str] | str, what: str) -> Sequence[str]:
    """The species that are wanted, or every one; ValueError for one that there isn't."""
    known, wanted = sorted(every.unique()), _listed(wanted)
    if strange := ", ".join(sorted(set(wanted) - set(known))):
        raise ValueError(f"species: no {strange} is {what}; there are {', '.join(known)}")
    return wanted or known


def _refuse_weights(pretrained: bool | str) -> None:
    if isinstance(pretrained, bool):
        return
    if not isinstance(pretrained, str):
        raise ValueError(f"pretrained is {pretrained!r}; name a weights file")
    if not Path(pretrained).is_file():
        raise ValueError(f"pretrained: there is no file {Path(pretrained).absolute()}")
    with opened(pretrained):
        pass


def _folder(name: str, wanted: str | Path, default: Path) -> Path:
    """The wanted folder; ValueError where none can be, as it or one that it lies in is a file."""
    if not isinstance(wanted, str | Path):
        raise ValueError(f"{name} is {wanted!r}; name a folder")
    folder = Path(wanted).expanduser() if str(wanted) else default
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{name} is {folder}, but {there} is a file; name a folder")
    return folder
