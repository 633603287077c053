"""The public half of the paper's data: a set that was downloaded, as a catalog."""

from importlib import import_module
from pathlib import Path

import pandas as pd

from miewid_core.catalog import BOX
from miewid_core.paper.printed import species_name
from miewid_core.readers.load import load_catalog

SETS = Path(__file__).parent / "cards" / "datasets.csv"
COLUMNS = ["annotation_id", "file_name", "species", "name", "viewpoint", "encounter", "date"]
COLUMNS += [*BOX, "theta"]


def public_catalog(source: str, folder: str | Path) -> pd.DataFrame:
    """COLUMNS of a set that lies in `folder`, to be written there as a CSV for `load_catalog`.

    `source`: a class of wildlife-datasets, which knows the folders of each set, those of Wild Me on
    LILA among them (AGPL: whoever uses it installs it, and it is imported here alone). Species have
    the paper's names: as the set names them, or else as cards/datasets.csv does. Rows with a
    problem are left out, with a warning. Raises ValueError without that package or class.
    """
    try:
        classes = import_module("wildlife_datasets.datasets")
    except ImportError:
        raise ValueError(f"{source}: first pip install wildlife-datasets") from None
    if not hasattr(classes, source):
        raise ValueError(f"wildlife-datasets has no data set {source!r}")
    dataset = getattr(classes, source)(str(folder))
    rows = load_catalog(dataset, on_problem="drop", verify=False, species=_species(source))
    root = Path(folder).resolve()
    files = [Path(path).relative_to(root).as_posix() for path in rows["path"]]
    return rows.assign(file_name=files, species=rows["species"].map(species_name))[COLUMNS]


def _species(source: str) -> str:
    """The one species of a class of wildlife-datasets by the card; "" for several or none."""
    sets = pd.read_csv(SETS, keep_default_na=False)
    classes = (sets["wildlife_datasets"] + " " + sets["similar_public"]).str.split()
    names = {species_name(name) for name in sets.loc[[source in own for own in classes], "dataset"]}
    return names.pop() if len(names) == 1 else ""
