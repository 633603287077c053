"""What a notebook works on: a catalog, its split, a configuration, and where results go."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from miewid_core import splits
from miewid_core.config import PRESETS, TrainConfig, fine_tuning
from miewid_core.config import preset as training_preset
from miewid_core.demo.draw import SIDES_DIFFER, draw_animals
from miewid_core.files import CACHE, ROOT
from miewid_core.loss import dynamic_margins
from miewid_core.model import refuse_pickle
from miewid_core.readers.load import load_catalog
from miewid_core.runs.jobs import Job, jobs_on, train_all
from miewid_core.runs.run import Run

ADDRESS = re.compile(r"(tcp|tls|ucx|ucxx|wss?)://[^\s/]+:\d+")  # of a Dask scheduler


@dataclasses.dataclass(frozen=True)
class Study:
    """A catalog split by section 3.3, with the trainings and rankings that notebooks share.

    `scale` names the data in every output ("demo" for the drawn animals). `train` and `test` are
    the catalog's rows of those parts. `scheduler`: address of a Dask scheduler, "" for none.
    """

    scale: str
    photos: pd.DataFrame
    split: pd.DataFrame
    train: pd.DataFrame
    test: pd.DataFrame
    config: TrainConfig
    seed: int
    figures_dir: Path
    runs_dir: Path
    chips_dir: Path
    scheduler: str = ""

    @property
    def label(self) -> str:
        """Words for titles: what the numbers were measured on."""
        drawn = " (drawn animals: shows the method, proves no claim)"
        return self.scale + (drawn if self.scale == "demo" else "")

    def settings(self) -> pd.DataFrame:
        """The training's whole configuration beside appendix A.1's: setting, here, paper."""
        ours, theirs = (dataclasses.asdict(config) for config in (self.config, PRESETS["paper"]))
        if Path(str(ours["pretrained"])).is_file():  # a name says enough: no reader's folders
            ours["pretrained"] = Path(ours["pretrained"]).name
        rows = [(name, str(ours[name]), str(theirs[name])) for name in ours]
        return pd.DataFrame(rows, columns=["setting", "here", "paper"])

    def margins(self) -> pd.DataFrame:
        """Per training individual: species, individual, annotations, margin in radians (A.1)."""
        counts = self.train.groupby(["species", "individual"]).size().rename("annotations")
        low, high = self.config.margin_low, self.config.margin_high
        return counts.reset_index().assign(margin=dynamic_margins(counts.to_numpy(), low, high))

    def job(self, rows: pd.DataFrame, title: str, start: Job | None = None, **changes) -> Job:
        """A training on `rows`, with some fields of the configuration (or the seed) changed.

        With `start` it fine-tunes the network of that job (section 5.5).
        """
        seed = changes.pop("seed", self.seed)
        config = self.config if start is None else fine_tuning(self.config)
        return Job(title, rows, dataclasses.replace(config, **changes), seed, start)

    def train_all(self, jobs: Sequence[Job]) -> list[Run]:
        """The finished runs of `jobs`, in order; what is not yet trained is trained now."""
        with jobs_on(self.scheduler) as executor:
            return train_all(jobs, self.runs_dir, self.chips_dir, executor)

    def trained(self, rows: pd.DataFrame, title: str, **changes: object) -> Run:
        """The run trained on `rows`, with some fields of the configuration changed."""
        return self.train_all([self.job(rows, title, **changes)])[0]

    def multi_species_job(self) -> Job:
        """The network trained on every species (section 5.1)."""
        return self.job(self.train, "all species")

    def single_species_jobs(self) -> dict[str, Job]:
        """One network for each species with training data, each trained on that species alone."""
        return {
            species: self.job(rows, f"{species} alone")
            for species, rows in self.train.groupby("species")
        }

    def leave_one_out_jobs(self, species: Sequence[str] = ()) -> dict[str, Job]:
        """One network for each of `species` (all tested ones), trained on all the others (5.2)."""
        tested = sorted(self.test["species"].unique())
        strange = ", ".join(sorted(set(species) - set(tested)))
        if strange:
            raise ValueError(f"species: no {strange} is tested; there are {', '.join(tested)}")
        return {
            left: self.job(self.train[self.train["species"] != left], f"all but {left}")
            for left in species or tested
        }

    def multi_species(self) -> Run:
        """The run of `multi_species_job`."""
        return self.train_all([self.multi_species_job()])[0]

    def single_species(self) -> dict[str, Run]:
        """The runs of `single_species_jobs`."""
        return self._trained_each(self.single_species_jobs())

    def leave_one_out(self, species: Sequence[str] = ()) -> dict[str, Run]:
        """The runs of `leave_one_out_jobs`."""
        return self._trained_each(self.leave_one_out_jobs(species))

    def _trained_each(self, jobs: dict[str, Job]) -> dict[str, Run]:
        return dict(zip(jobs, self.train_all(list(jobs.values())), strict=True))

    def untrained(self) -> Run:
        """The network as it is before any training, for comparison."""
        return self.trained(self.train, "untrained", epochs=0)

    def ranks(self, run: Run, species: str | None = None) -> pd.DataFrame:
        """Ranks of the test annotations (of one species) by a run's embeddings (section 3.4)."""
        rows = self.test if species is None else self.test[self.test["species"] == species]
        return run.ranks(rows.reset_index(drop=True), self.chips_dir)

    def ranks_alone(self) -> pd.DataFrame:
        """Ranks of the test annotations, each species by the network trained on it alone."""
        return self._ranks_each(self.single_species())

    def ranks_left_out(self, species: Sequence[str] = ()) -> pd.DataFrame:
        """Ranks of the test annotations, each species by the network that never saw it (5.2)."""
        return self._ranks_each(self.leave_one_out(species))

    def _ranks_each(self, trained: dict[str, Run]) -> pd.DataFrame:
        """Ranks of each species by its own run; species without a test annotation have none."""
        tested = [species for species in trained if (self.test["species"] == species).any()]
        parts = [self.ranks(trained[species], species) for species in tested]
        return pd.concat(parts, ignore_index=True)


def scale_name(source: str) -> str:
    """Short name of a source for output folders: "demo", or the folder that the catalog lies in."""
    if source == "demo":
        return source
    whole = Path(source).resolve()
    return (whole if whole.is_dir() else whole.parent).name


def open_study(
    source: str = "demo",
    preset: str = "demo",
    sides_differ: list[str] | str | None = None,
    pretrained: str = "",
    image_size: int = 0,
    epochs: int = 0,
    figures_dir: str = "",
    runs_dir: str = "",
    seed: int = 0,
    on_problem: str = "raise",
    scheduler: str = "",
) -> Study:
    """Read and split the catalog that a notebook's parameters name; empty ones mean the default.

    `sides_differ`: species whose sides are different individuals, as a list or separated by commas.
    `pretrained`: a weights file in place of the preset's own. Relative paths count from the working
    directory. `on_problem`: "raise", or "drop" photos with problems (see `catalog.load`).
    `scheduler`: address of the Dask scheduler whose workers train ("" for this computer). Raises
    ValueError (CatalogError for the photos) naming what to mend.
    """
    if isinstance(sides_differ, str):
        sides_differ = [name.strip() for name in sides_differ.split(",") if name.strip()]
    changes = {"pretrained": pretrained, "image_size": image_size, "epochs": epochs}
    config = training_preset(preset, **{key: value for key, value in changes.items() if value})
    _refuse_weights(config.pretrained)
    for name, folder in {
        "figures_dir": figures_dir or ROOT / "figures",
        "runs_dir": runs_dir or CACHE / "runs",
        "chips_dir": CACHE / "chips",
    }.items():
        _refuse_file(name, folder)
    _refuse_address(scheduler)
    table, sides = resolve(source, sides_differ or ())
    photos = load_catalog(table, sides_differ=sides, on_problem=on_problem)
    split = splits.split(photos, seed)
    scale = scale_name(source)
    return Study(
        scale=scale,
        photos=photos,
        split=split,
        train=splits.rows(photos, split, "train"),
        test=splits.rows(photos, split, "test"),
        config=config,
        seed=seed,
        figures_dir=Path(figures_dir) if figures_dir else ROOT / "figures" / scale,
        runs_dir=Path(runs_dir) if runs_dir else CACHE / "runs",
        chips_dir=CACHE / "chips",
        scheduler=scheduler,
    )


def resolve(source: object, sides_differ: Sequence[str] = ()) -> tuple[object, Sequence[str]]:
    """What `load_catalog` is to read, and whose sides differ: "demo" is the drawn animals."""
    if isinstance(source, str) and source == "demo":
        return draw_animals(CACHE / "demo"), sides_differ or SIDES_DIFFER
    return source, sides_differ


def _refuse_weights(pretrained: bool | str) -> None:
    if isinstance(pretrained, bool):
        return
    if not isinstance(pretrained, str):
        raise ValueError(f"pretrained is {pretrained!r}; name a weights file")
    if not Path(pretrained).is_file():
        raise ValueError(f"pretrained: there is no file {pretrained}")
    refuse_pickle(pretrained)


def _refuse_file(name: str, folder: str | Path) -> None:
    """Raise ValueError where no folder can be, as it or one that it lies in is a file."""
    if not isinstance(folder, str | Path):
        raise ValueError(f"{name} is {folder!r}; name a folder")
    there = next(path for path in (Path(folder), *Path(folder).absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"{name} is {folder}, but {there} is a file; name a folder")


def _refuse_address(scheduler: str) -> None:
    if scheduler != "" and not (isinstance(scheduler, str) and ADDRESS.fullmatch(scheduler)):
        raise ValueError(f'scheduler is {scheduler!r}; give an address such as "tcp://host:8786"')
