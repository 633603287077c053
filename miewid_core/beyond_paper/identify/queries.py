"""The photos to identify: the reader's, or known ones that are held back."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import ExifTags, Image

from miewid_core.catalog import BOX
from miewid_core.files import file_digest
from miewid_core.photos import UNREADABLE
from miewid_core.readers.checks import notice, summed
from miewid_core.readers.load import load_catalog, read_dates
from miewid_core.readers.sources import is_folder

HELD_BACK = 9  # individuals at most, as if unidentified


def to_identify(
    annotations: pd.DataFrame, tested: pd.DataFrame, source: str, seed: int, **where: str | bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The photos to identify and the known ones: `unidentified` of a source, or else `hold_back`.

    `annotations`: the catalog; `tested`: those of it that the network hasn't learned. `where`: what
    `unidentified` takes. A query that is a copy of a known photo has a `note`, and is noticed
    (`catalog.notices`).
    """
    if not source:
        return hold_back(annotations, tested, seed)
    queries = unidentified(str(source), sorted(annotations["species"].unique()), **where)
    queries["note"] = copies(queries, annotations)
    told = queries.assign(row="query " + queries["annotation_id"])
    told = notice(told, told["note"] != "", told["note"], "kept")
    queries.attrs["notices"] = [*queries.attrs["notices"], *summed([told])]
    return queries, annotations


def copies(queries: pd.DataFrame, known: pd.DataFrame) -> pd.Series:
    """Of which known photo each query's file is a copy, byte by byte, in words; "" for none.

    Another box of the known photo's own file is no copy: a photo can show several animals.
    """
    both = pd.concat([queries.assign(asked=True), known.assign(asked=False)])
    size = both["path"].map(lambda path: Path(path).stat().st_size)
    # only files of one size can be copies: no others are read
    both = both[both.groupby(size)["asked"].transform("nunique") > 1]
    both = both.assign(content=both["path"].map(file_digest))
    asked, there = both[both["asked"]], both[~both["asked"]]
    pairs = asked.merge(there, on="content", suffixes=("", "_known"))
    pairs["alike"] = np.all([pairs[side] == pairs[f"{side}_known"] for side in BOX], axis=0)
    pairs = pairs[pairs["alike"] | (pairs["path"] != pairs["path_known"])]
    owners = pairs.sort_values("alike", ascending=False, kind="stable").groupby("annotation_id")
    words = "the same photo as a known one of " + owners["individual_known"].first()
    return queries["annotation_id"].map(lambda query: words.get(query, ""))


def unidentified(
    source: Path | str,
    known: list[str],
    photos_dir: str = "",
    absolute_paths: bool = False,
    species: str = "",
) -> pd.DataFrame:
    """Photos to identify: a folder, or a table as for `load_catalog` whose names don't matter.

    Returns catalog rows with individual and name "", annotation_id the source's or the file, and
    the date of the photo's EXIF where none is given. Species is the source's, or the subfolder's
    name, where it is one of the `known` ones; else `species`, or the only known one; else "":
    compared with all. A table's photos lie in `photos_dir` or beside it. A photo that can't be used
    is left out, warned of, and listed in `.attrs["dropped"]`. Raises CatalogError where none can be
    used.
    """
    where = {"photos_dir": "" if is_folder(source) else photos_dir}
    where["absolute_paths"] = absolute_paths
    annotations = load_catalog(source, on_problem="drop", named=False, **where)
    only = species or (known[0] if len(known) == 1 else "")
    annotations["species"] = annotations["species"].where(annotations["species"].isin(known), only)
    return with_dates(annotations)


def with_dates(annotations: pd.DataFrame) -> pd.DataFrame:
    """The photos with the time in their EXIF where the catalog gives no date; NaT without either.

    A camera's clock can be wrong: dates that a catalog gives come first. Of the times in a file
    that of the exposure does; the time of its last change is noticed (`catalog.notices`).
    """
    undated = annotations[annotations["date"].isna()]
    taken = pd.DataFrame(map(_taken, undated["path"]), undated.index, ["taken", "changed"], str)
    exposed, changed = read_dates(taken["taken"]), read_dates(taken["changed"])
    late = exposed["date"].isna() & changed["date"].notna()
    rows = undated.assign(row=undated["path"].map(lambda path: Path(path).name))
    told = [
        notice(rows, exposed["what"] != "", exposed["what"] + " (EXIF)", "not used"),
        notice(rows, late, "no time of exposure (EXIF)", "dated by its last change"),
    ]
    date = annotations["date"].astype("datetime64[us]")
    dated = annotations.assign(date=date.fillna(exposed["date"]).fillna(changed["date"]))
    dated.attrs["notices"] = [*annotations.attrs.get("notices", []), *summed(told)]
    return dated


def _taken(path: str) -> tuple[str, str]:
    """When a photo was taken, and last changed, as its EXIF has it; "" for unknown."""
    try:
        with Image.open(path) as photo:
            exif = photo.getexif()
            inner = exif.get_ifd(ExifTags.IFD.Exif)
    except UNREADABLE:
        return "", ""
    times = (inner.get(ExifTags.Base[name]) for name in ("DateTimeOriginal", "DateTimeDigitized"))
    return next(map(str, filter(None, times)), ""), str(exif.get(ExifTags.Base.DateTime, ""))


def one_an_encounter(annotations: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One random photo of each individual's encounter, as in a test set (section 3.3)."""
    drawn = annotations.sort_values("annotation_id").sample(frac=1, random_state=seed)
    drawn = drawn[(drawn["encounter"] == "") | ~drawn.duplicated(["individual", "encounter"])]
    return drawn.sort_values("annotation_id", ignore_index=True)


def hold_back(
    annotations: pd.DataFrame, tested: pd.DataFrame, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Some of `tested` as if unidentified, and those of `annotations` that are left as known.

    One of each of a few random individuals, at most a quarter of them; every third of these loses
    all its other photos, and is new then. The others keep those of other encounters. Both tables
    keep their `individual`, by which answers can be judged.
    """
    drawn = tested[tested["individual"].duplicated(keep=False)].sort_values("annotation_id")
    drawn = drawn.sample(frac=1, random_state=seed).drop_duplicates("individual")
    queries = drawn.head(min(HELD_BACK, max(1, len(drawn) // 4))).reset_index(drop=True)
    new = queries["individual"][2::3]
    burst = queries.loc[queries["encounter"] != "", "encounter"]
    seen = annotations["annotation_id"].isin(queries["annotation_id"])
    seen |= annotations["encounter"].isin(burst)
    known = annotations[~seen & ~annotations["individual"].isin(new)].reset_index(drop=True)
    queries.attrs = {}  # notices of the catalog
    return queries, known
