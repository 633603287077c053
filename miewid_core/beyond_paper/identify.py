"""Who is this? Ranked candidates for photos of unidentified animals, from photos of known ones."""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import ExifTags, Image
from sklearn.preprocessing import normalize
from tqdm import tqdm

from miewid_core import evaluation
from miewid_core.beyond_paper.embeddings import Embeddings
from miewid_core.catalog import BOX, notice, summed
from miewid_core.chips import ChipStore
from miewid_core.figures import Panel, spelt
from miewid_core.files import file_digest
from miewid_core.paper.comparison import compare, no_better, with_interval
from miewid_core.paper.study import Study, open_study
from miewid_core.photos import UNREADABLE
from miewid_core.readers.dates import read_dates
from miewid_core.readers.load import load_catalog
from miewid_core.readers.sources import is_folder
from miewid_core.readers.weights import load_model
from miewid_core.runs.run import Training

COLUMNS = ["query", "rank", "individual", "match", "score"]
Rerank = Callable[[np.ndarray, np.ndarray, pd.Series, pd.Series], tuple[np.ndarray, np.ndarray]]
TOP = (1, 5, 10)
FEW = 10  # individuals below which a bootstrap interval is no longer worth its name


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
    tables = [
        table.assign(size=_of_each(table["path"], lambda path: Path(path).stat().st_size))
        for table in (queries, known)
    ]
    both = set(tables[0]["size"]) & set(tables[1]["size"])
    tables = [table[table["size"].isin(both)] for table in tables]
    asked, known = (table.assign(content=_of_each(table["path"], file_digest)) for table in tables)
    pairs = asked.merge(known, on="content", suffixes=("", "_known"))
    alike = (pairs[BOX].to_numpy() == pairs[[f"{side}_known" for side in BOX]].to_numpy()).all(1)
    pairs = pairs.assign(alike=alike)[alike | (pairs["path"] != pairs["path_known"])]
    owners = pairs.sort_values("alike", ascending=False, kind="stable").groupby("annotation_id")
    words = "the same photo as a known one of " + owners["individual_known"].first()
    return queries["annotation_id"].map(lambda query: words.get(query, ""))


def _of_each(paths: pd.Series, what: Callable[[str], object]) -> pd.Series:
    return paths.map({path: what(path) for path in paths.unique()})


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
    date = date.fillna(exposed["date"]).fillna(changed["date"])
    dated = annotations.assign(date=date)
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
    names = ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized
    taken = next((text for text in (str(inner.get(name, "")) for name in names) if text), "")
    return taken, str(exif.get(ExifTags.Base.DateTime, ""))


def one_an_encounter(annotations: pd.DataFrame, seed: int) -> pd.DataFrame:
    """One random photo of each individual's encounter, as in a test set (section 3.3)."""
    drawn = annotations.sort_values("annotation_id").sample(frac=1, random_state=seed)
    drawn = drawn[(drawn["encounter"] == "") | ~drawn.duplicated(["individual", "encounter"])]
    return drawn.sort_values("annotation_id", ignore_index=True)


def hold_back(
    annotations: pd.DataFrame, tested: pd.DataFrame, seed: int, most: int = 9
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Some of `tested` as if unidentified, and those of `annotations` that are left as known.

    One of each of a few random individuals, at most a quarter of them; a third of these lose all
    their other photos, and are new then. The others keep those of other encounters. Both tables
    keep their `individual`, by which answers can be judged.
    """
    drawn = tested[tested["individual"].duplicated(keep=False)].sort_values("annotation_id")
    drawn = drawn.sample(frac=1, random_state=seed).drop_duplicates("individual")
    queries = drawn.head(min(most, max(1, len(drawn) // 4)))
    new = queries["individual"].head(len(queries) // 3)
    burst = queries.loc[queries["encounter"] != "", "encounter"]
    seen = annotations["annotation_id"].isin(queries["annotation_id"])
    seen |= annotations["encounter"].isin(burst)
    known = annotations[~seen & ~annotations["individual"].isin(new)].reset_index(drop=True)
    is_new = queries["individual"].isin(new)
    turn = is_new.groupby(is_new).cumcount() * np.where(is_new, 2, 1)  # a new one to two known
    queries = queries.iloc[np.lexsort([is_new, turn])].reset_index(drop=True)
    queries.attrs = {}  # notices of the catalog
    return queries, known


def candidates(
    known: Embeddings, queries: Embeddings, k: int = 5, rerank: Rerank | None = None
) -> pd.DataFrame:
    """The k individuals most like each query, each by its photo that is nearest by cosine.

    Returns COLUMNS, one row per query and candidate, best first: query and match are annotation
    ids, rank counts from 1, score is the cosine in [-1, 1]. With `rerank`, a `fusion.Fusion`'s,
    photos are ranked by its fused score in [0, 1] instead. A query of unknown species "" is
    compared with all. Raises ValueError for embeddings that can't be compared (see `search`).
    """
    parts = []
    for species in queries.rows["species"].unique():
        own = queries.of(queries.rows["species"] == species)
        every = np.full(len(known.rows), species == "")
        others = known.of(every | (known.rows["species"] == species))
        parts.append(_ranked(others, own, k, rerank))
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    order = pd.Series(range(len(queries.rows)), queries.rows["annotation_id"])
    return found.sort_values("query", key=order.get, kind="stable", ignore_index=True)


def by_file(found: pd.DataFrame, queries: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """A table of `candidates` with the names of files in place of annotation ids."""
    paths = pd.concat([queries, known]).set_index("annotation_id")["path"]
    names = {key: Path(path).name for key, path in paths.items()}
    return found.assign(query=found["query"].map(names), match=found["match"].map(names))


def _ranked(known: Embeddings, queries: Embeddings, k: int, rerank: Rerank | None) -> pd.DataFrame:
    # however many photos k - 1 individuals have, one photo more belongs to another one
    enough = int(known.rows["individual"].value_counts().head(k - 1).sum()) + 1
    scores, rows = search(known, queries, len(known.rows) or 1 if rerank else enough)
    if rerank:
        ids = (of.rows["annotation_id"] for of in (queries, known))
        scores, rows = rerank(scores, rows, *ids)
    found = pd.DataFrame({"query": queries.rows["annotation_id"].repeat(scores.shape[1])})
    nearest = known.rows.iloc[rows.ravel()]
    found["individual"] = nearest["individual"].to_numpy()
    found["match"], found["score"] = nearest["annotation_id"].to_numpy(), scores.ravel()
    found = found.drop_duplicates(["query", "individual"])
    found["rank"] = found.groupby("query").cumcount() + 1
    return found.loc[found["rank"] <= k, COLUMNS]


def panels(
    found: pd.DataFrame,
    queries: pd.DataFrame,
    known: pd.DataFrame,
    chips_dir: Path,
    size: int = 128,
) -> list[list[Panel]]:
    """For each query its chip and those of its candidates, right or wrong where that is known.

    `found`: of `candidates`. `queries`, `known`: catalog rows; individual "" is no truth.
    """
    store, shown = ChipStore(chips_dir, size), known.set_index("annotation_id")
    rows, every = [], set(known["individual"])
    for query in queries.itertuples():
        own = found[found["query"] == query.annotation_id]
        annotations = pd.concat([queries.loc[[query.Index]], shown.loc[own["match"]]])
        chips = [store.read(key) for key in store.build(annotations)]
        new = query.individual and query.individual not in every
        named = "new animal" if new else f"query {query.name or Path(query.path).name}"
        captions = [f"{query.species}\n{named}"]
        pairs = zip(annotations["name"][1:], own["score"], strict=True)
        captions += [f"{name}\n{score:.2f}" for name, score in pairs]
        right = [row == query.individual if query.individual else None for row in own["individual"]]
        rows.append(list(zip(chips, captions, [None, *right], strict=True)))
    return rows


def success(tested: Embeddings, learned: Collection[str] = ()) -> pd.DataFrame:
    """How often a known individual is among the first 1, 5 and 10 photos, in percent.

    Columns species, queries, individuals; top1, top1_low, top1_high (95 % interval), chance1, and
    so on for 5 and 10. Where individuals are known to be `learned` by the network, also top1_seen
    and top1_new: of these, and of the others. The last row is the mean over species. Each of the
    photos `tested` queries the others of its species (section 3.4).
    """
    labels = (tested.rows[name] for name in ("individual", "species", "encounter", "annotation_id"))
    ranks = evaluation.one_vs_all(tested.vectors, *labels)
    tables = []
    for k in TOP:
        seen = learned if k == 1 and learned else None
        table = compare({f"top{k}": ranks}, k=k, seen=seen).set_index("species")
        table = table.drop(columns=f"top{k}_trainings")
        tables.append(table.rename(columns={"chance": f"chance{k}"}))
    whole = pd.concat([tables[0], *[table.iloc[:, 2:] for table in tables[1:]]], axis=1)
    return whole.reset_index()


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `success` for a reader, intervals in their columns."""
    shown = table[["species", "queries", "individuals"]].copy()
    for k in TOP:
        shown[f"top-{k} (%)"] = with_interval(table, f"top{k}")
    shown["top-1 by chance"] = table["chance1"]
    if "top1_seen" in table:
        shown["seen animals"], shown["new ones"] = table["top1_seen"], table["top1_new"]
    return shown


def headline(table: pd.DataFrame) -> str:
    """A table of `success` in a sentence."""
    known = table[:-1]["top1"].dropna()
    if known.empty:
        return "No individual was photographed in two encounters, so nothing can be said."
    return (
        f"The nearest photo shows the right individual in {known.mean():.0f} % of the searches "
        f"(mean over {len(known)} species); decide on the page photos/review.html."
    )


def in_words(table: pd.DataFrame) -> str:
    """What a table of `success` tells, and what so few individuals can't tell; a list."""
    return "\n".join(f"- {_species_in_words(row)}" for row in table[:-1].itertuples())


def _species_in_words(row: tuple) -> str:
    if not row.queries:
        return (
            f"**{row.species}**: no individual was photographed in two encounters among the photos "
            "kept for testing, so nothing can be said about how well it works. Photos of the same "
            "individuals from other days are needed."
        )
    head = (
        f"**{row.species}**: the nearest photo shows the right individual in {row.top1:.0f} % of "
        f"{row.queries} searches for {row.individuals} individuals"
    )
    if row.individuals < FEW:
        return (
            f"{head}, where guessing finds {row.chance1:.0f} %. So few individuals tell little, "
            f"an interval would mislead: even {row.individuals} successes with {row.individuals} "
            f"leave room for {_at_most(row.individuals)} % of failures. With so few to choose "
            "from, a search is also easier than it will be later."
        )
    verdict = "better than" if row.top1_low > row.chance1 else "no difference shown to"
    return (
        f"{head} (95 % interval {row.top1_low:.0f} to {row.top1_high:.0f}), {verdict} guessing "
        f"({row.chance1:.0f} %); it is among the first five photos in {row.top5:.0f} %, among the "
        f"first ten in {row.top10:.0f} %."
    )


def _at_most(n: int) -> int:
    """Percentage of failures that n successes in a row don't exclude at 95 % confidence."""
    return round(100 * min(1.0, 1 - 0.05 ** (1 / n)))


LEAST = 10  # individuals below which a network isn't trained on a catalog


@dataclasses.dataclass(frozen=True)
class Network:
    """A weights file, photos `tested` that it hasn't learned from, and `words` on what it is.

    `learned`: the individuals that it was trained on, as far as that is known.
    """

    weights: Path
    tested: pd.DataFrame
    learned: frozenset[str]
    words: str


def choose(study: Study, weights: str = "") -> Network:
    """The network of a file `weights`, or else one trained on the study's training photos.

    A run's rows.csv beside the weights tells what they learned. Where that is none of these
    individuals, or isn't known, one photo of each encounter is tested. From a catalog of fewer than
    LEAST training individuals no network is trained: the preset's pretrained one serves as it is,
    or the demo's. Raises ValueError where `weights` is no file.
    """
    if weights and Path(weights).is_dir():  # of the hub
        weights = str(Path(weights) / "model.safetensors")
    if weights and not Path(weights).is_file():
        raise ValueError(f"weights: there is no file {weights}")
    if weights:
        return _of_file(study, Path(weights))
    tested, rest = study.test, study.train
    if tested.empty:
        tested = one_an_encounter(study.annotations, study.seed)
        several = tested["individual"][tested["individual"].duplicated()]  # these can be found
        rest = rest[~rest["individual"].isin(several)]
    return _trained(study, rest, tested)


def _of_file(study: Study, weights: Path) -> Network:
    """The network of a weights file, tested on photos of sightings that it didn't learn."""
    annotations, rows = study.annotations, weights.with_name("rows.csv")
    words = f"the weights in `{weights.name}`."
    if not rows.is_file():
        words += (
            " Nothing beside them says which animals they learned. If yours are among them, all "
            "below looks better than it will be for new ones."
        )
        tested = one_an_encounter(annotations, study.seed)
        return Network(weights, tested, frozenset(), words)
    rows = pd.read_csv(rows, dtype=str, keep_default_na=False)
    keys = ChipStore(study.chips_dir, load_model(weights)[1].size).keys(annotations)
    shown = keys.isin(rows["chip"])  # learned, whatever the animal is called there
    people = annotations["individual"]
    learned = frozenset(people[shown | people.isin(rows["individual"])])
    fresh = annotations[~shown & ~_met_with(annotations, shown)]
    tested = study.test
    untouched = tested["annotation_id"].isin(fresh["annotation_id"]).all()
    if not learned or tested.empty or not untouched:
        tested = one_an_encounter(fresh, study.seed)
    words += f" Their run says: they learned {len(learned):,} of {people.nunique():,} individuals."
    return Network(weights, tested, learned, words)


def _met_with(annotations: pd.DataFrame, shown: pd.Series) -> pd.Series:
    """Which photos are of an encounter that has one of those `shown`."""
    encounters = annotations["individual"] + " " + annotations["encounter"]
    return (annotations["encounter"] != "") & encounters.isin(encounters[shown])


def asked(study: Study) -> list[Training]:
    """The training that `choose` needs, if it trains: the one for all species."""
    enough = study.train["individual"].nunique() >= LEAST
    return [study.training(study.train, "your animals")] if enough else []


def _trained(study: Study, rows: pd.DataFrame, tested: pd.DataFrame) -> Network:
    """The network trained on `rows`, or what stands in for it where they are too few."""
    individuals = rows["individual"].nunique()
    if individuals >= LEAST:
        training = study.training(rows, "your animals")
        run = study.run([training])[0]
        learned = frozenset(rows["individual"])
        words = f"trained on {len(rows):,} photos of {individuals} of your individuals."
        before = study.training(rows, "untrained", epochs=0)
        return Network(
            run.weights, tested, learned, words + _no_gain(study, training, before, tested)
        )
    few = f"{individuals} individuals to train on are too few"
    if study.config.pretrained:
        run = study.run([study.training(study.annotations, "as it came", epochs=0)])[0]
        words = f"as its pretraining left it: {few}. Better give `weights`, such as MiewID's."
    else:
        run = study.run([open_study(runs_dir=str(study.runs_dir)).multi()])[0]
        words = (
            "the demo's, which knows drawn animals only: it serves to try this notebook out. "
            f"{few}; give `weights`, such as the released MiewID's."
        )
    return Network(run.weights, tested, frozenset(), words)


def _no_gain(study: Study, training: Training, before: Training, tested: pd.DataFrame) -> str:
    """A sentence on the species that the training did not help, "" where there is none."""
    networks = {"multi": training, "untrained": before}
    ranks = {
        name: study.rank(study.embeddings(of, tested), tested) for name, of in networks.items()
    }
    lost = no_better(compare(ranks), "multi")
    if not lost:
        return ""
    return f" **The training did not help to identify {', '.join(map(spelt, lost))}.**"


BLOCK, ROWS = 256, 65_536  # queries and database rows at once: 67 MB of similarities


def search(embeddings: Embeddings, queries: Embeddings, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of `embeddings` nearest to each of M queries, by cosine, nearest first.

    Returns cosines (M, k) float32 and row numbers (M, k) int64; k is at most the number of rows. A
    query that is among the rows finds itself. Raises ValueError for embeddings of another network
    or preprocessing, and where k is less than 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    embeddings.refuse_other(queries)
    k = min(k, len(embeddings.rows))
    if not k or queries.rows.empty:
        return np.empty((len(queries.rows), k), np.float32), np.empty((len(queries.rows), k), int)
    unit = [normalize(of.vectors.astype(np.float32)) for of in (embeddings, queries)]
    return _nearest(*map(torch.from_numpy, unit), k)


def _nearest(
    database: torch.Tensor, queries: torch.Tensor, k: int
) -> tuple[np.ndarray, np.ndarray]:
    scores, rows = torch.empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.long)
    blocks = range(0, len(queries), BLOCK)
    for start in tqdm(blocks, "search", disable=len(queries) * len(database) < 10**8):
        own = queries[start : start + BLOCK]
        found = [  # the best of each part of the database, then the best of these
            _best(own, database[first : first + ROWS], first, k)
            for first in range(0, len(database), ROWS)
        ]
        values, places = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        scores[start : start + BLOCK], order = values.topk(k)
        rows[start : start + BLOCK] = places.gather(1, order)
    return scores.numpy(), rows.numpy()


def _best(
    queries: torch.Tensor, part: torch.Tensor, first: int, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    values, places = (queries @ part.T).topk(min(k, len(part)))
    return values, places + first
