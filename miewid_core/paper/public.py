"""A downloaded public set, or any other catalog, as a checked CSV under the paper's names."""

import os
import shlex
import warnings
from importlib import import_module
from pathlib import Path

import pandas as pd

from miewid_core.catalog import COLUMNS, CatalogWarning, individuals, notices, sides
from miewid_core.files import replacing
from miewid_core.paper.printed import SPELLINGS, species_name
from miewid_core.readers.load import load_catalog

SETS = Path(__file__).parent / "cards" / "datasets.csv"
TOLD = 10  # notices that are printed; all are in a file


def read(
    source: str, folder: str = "", species: str = "", absolute_paths: bool = False
) -> pd.DataFrame:
    """The catalog of a source, as of `load_catalog`, with species under the paper's names.

    `source`: a CSV, COCO JSON or folder of photos, whose photos lie in `folder` if they don't lie
    beside it; or a class of wildlife-datasets, which knows the layout of the set that lies in
    `folder` (AGPL: whoever uses it installs it, and it is imported here alone). `species`: of rows
    that name none. Rows with a problem are left out (`catalog.notices` lists them). `.attrs` has
    "renamed": the paper's name of each species that the source calls otherwise. Raises ValueError
    for what is no source.
    """
    opened = source
    if not (Path(source).expanduser().exists() or Path(source).suffix):
        opened, folder = _dataset(source, folder), ""
        species = species or ("" if "species" in opened.df else _species(source))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CatalogWarning)
        rows = load_catalog(
            opened,
            on_problem="drop",
            absolute_paths=absolute_paths,
            photos_dir=folder,
            species=species,
        )
    names = {name: species_name(name) for name in rows["species"].unique()}
    names = {name: ours for name, ours in names.items() if ours in SPELLINGS and name != ours}
    rows.attrs["renamed"] = names
    rows["species"] = rows["species"].replace(names)
    return rows.assign(individual=individuals(rows))


def _dataset(source: str, folder: str) -> object:
    """A data set of wildlife-datasets that lies in `folder`, with .df and .root."""
    missing = f"{source}: no such file or folder"
    try:
        classes = import_module("wildlife_datasets.datasets")
    except ImportError as error:
        raise ValueError(
            f"{missing}; for a class of wildlife-datasets, first pip install it ({error})"
        ) from None
    if not isinstance(getattr(classes, source, None), type):
        raise ValueError(f"{missing}, and wildlife-datasets has no data set of that name")
    try:
        return getattr(classes, source)(folder or ".")
    except Exception as error:  # whatever the package meets in a folder of another layout
        raise ValueError(
            f"{source}: wildlife-datasets can't read {folder or 'this folder'} ({error!r}); give "
            "the folder into which the set was downloaded and unpacked"
        ) from error


def _species(source: str) -> str:
    """The one species of a class of wildlife-datasets by the card; "" for several or none."""
    sets = pd.read_csv(SETS, keep_default_na=False)
    classes = (sets["wildlife_datasets"] + " " + sets["similar_public"]).str.split()
    names = {species_name(name) for name in sets.loc[[source in own for own in classes], "dataset"]}
    return names.pop() if len(names) == 1 else ""


def write(rows: pd.DataFrame, path: Path) -> str:
    """Write a catalog of `read` as a CSV that `load_catalog` reads to an equal one; says so.

    It is read again: an encounter of several animals that only a row left out had joined is counted
    per individual. Files are relative to the CSV, or else to the folder that holds all photos,
    which is named. What was noticed lies beside it, in a CSV that ends in _notices. Positions of
    animals are left out.
    """
    folder, told = path.absolute().parent.resolve(), notices(rows)
    root, beside = _root(rows, folder), path.with_name(f"{path.stem}_notices.csv")
    files = [Path(file).relative_to(root).as_posix() for file in rows["path"]]
    labels = [name for name in COLUMNS if name not in ("path", "individual")]
    for table, file in (
        (rows.assign(file_name=files)[["file_name", *labels]], path),
        (told, beside),
    ):
        with replacing(file) as temporary:
            table.to_csv(temporary, index=False)
    again = load_catalog(path, photos_dir=root, verify=False)
    if (again["encounter"] != rows["encounter"]).any():
        return write(rows.assign(encounter=again["encounter"]), path)
    lines = [_in_words(rows), *(": ".join(one) for one in told.head(TOLD).to_numpy())]
    lines += [f"... and {len(told) - TOLD:,} more"] * (len(told) > TOLD)
    where = f"CATALOG={shlex.quote(str(path))}"
    where += "" if root == folder else f" PHOTOS_DIR={shlex.quote(str(root))}"
    wrote = f"Written: {path}, and what was noticed or left out: {beside}"
    return "\n".join([*lines, wrote, f"Next: make figures {where} PRESET=compact"])


def _root(rows: pd.DataFrame, beside: Path) -> Path:
    """The folder of the CSV where it holds all photos, or else the one that does."""
    folders = {Path(path).parent for path in rows["path"]}
    inside = all(folder.is_relative_to(beside) for folder in folders)
    return beside if inside else Path(os.path.commonpath([*folders]))


def _in_words(rows: pd.DataFrame) -> str:
    """What a catalog of `read` holds, and whether the paper prints numbers of it."""
    species, renamed = sorted(rows["species"].unique()), rows.attrs["renamed"]
    side, dropped = sides(rows["viewpoint"]), len(rows.attrs.get("dropped", []))
    both = side[side != ""].groupby(rows["species"]).nunique() > 1
    others = ", ".join(name for name in species if name not in SPELLINGS)
    names = ", ".join(f"{name} is {ours}" for name, ours in renamed.items())
    differ = ",".join(both.index[both])
    parts = [
        f"{len(rows):,} annotations of {rows['individual'].nunique():,} individuals of "
        f"{len(species)} species ({', '.join(species)}); {dropped:,} rows with problems left out.",
        f"Under the paper's names {names}." * bool(names),
        f"The paper has no {others}." * bool(others),
        f"If left and right side differ, add SIDES_DIFFER={differ}." * bool(differ),
    ]
    return " ".join(filter(None, parts))
