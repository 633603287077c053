"""Who is this? Ranked candidates for photos of unidentified animals, from photos of known ones."""

import dataclasses
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import ExifTags, Image

from miewid_core import model
from miewid_core.beyond_paper import explain, gallery_size, review, threshold
from miewid_core.beyond_paper.embeddings import FINAL, Embeddings, Network, by_species, search
from miewid_core.beyond_paper.fusion import Fusion, from_file
from miewid_core.catalog import BOX, notices
from miewid_core.chips import ChipStore
from miewid_core.figures import spelt
from miewid_core.files import ROOT, file_digest
from miewid_core.paper import database_size, intervals
from miewid_core.paper.comparison import compare, no_better, with_interval
from miewid_core.paper.study import Study, open_study
from miewid_core.photos import UNREADABLE
from miewid_core.readers.checks import notice, summed
from miewid_core.readers.load import load_catalog, read_dates
from miewid_core.readers.sources import is_folder
from miewid_core.readers.weights import load_model, weights_file
from miewid_core.runs.run import Run, Training

COLUMNS = ["query", "rank", "individual", "match", "score"]
INSPECTED = (1, 2, 3, 5, 10, 15, 20)  # candidate individuals, the nearest first
PHOTOS, INDIVIDUALS = "photos of each individual", "individuals"
ENOUGH = 2  # points of top-1 that no further photo is worth
BEARABLE = 2  # percent of missed matches, each of which spoils the count
FEW = 10  # individuals below which a bootstrap interval is no longer worth its name
HELD_BACK = 9  # individuals at most, as if unidentified
UNKNOWN = (
    "Nothing says which animals these weights learned. If yours are among them, success and "
    "threshold look better than they will be for new ones."
)
LEAST = 10  # individuals below which a network isn't trained on a catalog
WHERE = "photos_dir", "absolute_paths", "species"  # of the photos to identify, as of a catalog


# ---- the network


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

    A run's own file is that run; another one is kept in `runs_dir` as a training of no epoch.
    """
    network, preprocess = load_model(weights)
    shape = {"backbone": network.name, "image_size": preprocess.size}
    folder, name = weights.resolve().parent, weights.resolve().name
    run = Run(folder)
    if (folder.parent, name) == (runs_dir.resolve(), "weights.safetensors") and run.finished:
        return shape | {"start": run}
    run = Run(runs_dir / f"given-{file_digest(weights)[:16]}")
    if not run.finished:
        model.save(network, preprocess, run.folder / "weights.safetensors")
        for name, columns in (("history", "epoch,loss,rate"), ("rows", "annotation_id,individual")):
            (run.folder / f"{name}.csv").write_text(f"{columns}\n")
        run.write_record({"config": shape | {"epochs": 0}}, weights.name, 0.0)
    return shape | {"start": run}


# ---- how well it works


def success(tested: Embeddings, learned: Collection[str] = ()) -> pd.DataFrame:
    """How often a known individual is among the first INSPECTED individuals, in percent.

    Individuals are ranked by their nearest photo, as on the review page. Columns species, queries,
    individuals; top1, top1_low, top1_high (95 % interval), chance1 (of as many individuals drawn at
    random), and so on for the others. Where individuals are known to be `learned` by the network,
    also top1_seen and top1_new: of these, and of the others. The last row is the mean over species.
    Each of the photos `tested` queries the others of its species (section 3.4).
    """
    found = gallery_size.ahead(tested.vectors, tested.rows)
    ranks = found.assign(first_match_rank=found["ahead"] + 1, candidates=found["others"] + 1)
    ranks["relevant"] = found["ahead"].notna().astype(int)  # of the candidates one is right
    tables = []
    for k in INSPECTED:
        seen = learned if k == 1 and learned else None
        table = compare({f"top{k}": ranks}, k=k, seen=seen).set_index("species")
        table = table.drop(columns=f"top{k}_trainings")
        tables.append(table.rename(columns={"chance": f"chance{k}"}))
    return pd.concat(
        [tables[0], *[table.iloc[:, 2:] for table in tables[1:]]], axis=1
    ).reset_index()


def missed(success: pd.DataFrame) -> pd.DataFrame:
    """How many searches for known animals are missed by how many candidates are looked at.

    The rest of the mean of `success`: columns inspected, missed, low, high (percent with its 95 %
    interval). A missed animal is counted twice, or as another one.
    """
    mean = success.iloc[-1]
    found = [mean[[f"top{k}", f"top{k}_high", f"top{k}_low"]] for k in INSPECTED]
    table = pd.DataFrame(100 - np.array(found, float), columns=["missed", "low", "high"])
    table.insert(0, "inspected", INSPECTED)
    return table


def missed_in_words(table: pd.DataFrame) -> str:
    """How many candidates to look at, from a table of `missed`."""
    table = table.set_index("inspected")
    if table["missed"].isna().all():
        return "No photo has another one of its individual to be found by."
    shown = with_interval(table.loc[[1, 10]], "missed", "low", "high", 0)
    one, ten = (text.replace(" ", " % ", 1) for text in shown)
    enough = [*table.index[table["high"] <= BEARABLE], f"more than {table.index[-1]}"][0]
    return (
        f"Looking at the first candidate alone misses {one} of the searches for known animals, on "
        f"average over species, looking at ten {ten}. To miss {BEARABLE} % at most, by the "
        f"interval's upper end, takes {enough}."
    )


def needed(tested: Embeddings, seed: int) -> pd.DataFrame:
    """Top-1 by the photos of each individual in the database, and by the number of individuals.

    Columns varied (PHOTOS or INDIVIDUALS), number, queries, top1, low, high (percent, 95 % interval
    of the mean over species). At most so many photos of each, drawn at random
    (`database_size.ranks`); of individuals up to as many as every species has (`gallery_size`).
    Nothing is trained: of networks trained on fewer animals it says nothing.
    """
    rows, columns = tested.rows, ["varied", "number", "queries", "top1", "low", "high"]
    most = int(rows.groupby("individual").size().max()) if len(rows) else 0
    limits = sorted({*(limit for limit in (1, 2, 3, 5, 10) if limit < most), most})
    if most < 2:
        return pd.DataFrame(columns=columns)
    ranks = database_size.ranks(tested.vectors, rows, limits, seed=seed)
    counted, parts = ~np.isnan(ranks[:, 0, 0]), []
    for place, limit in enumerate(limits):
        right = pd.Series((ranks[counted, :, place] <= 1).mean(axis=1), rows.index[counted])
        table = intervals.by_species(right, rows).iloc[-1:].rename(columns={"value": "top1"})
        table[["top1", "low", "high"]] *= 100
        parts.append(table.assign(varied=PHOTOS, number=limit))
    curve = gallery_size.curve([gallery_size.ahead(tested.vectors, rows)])
    curve = curve[curve["species"] == "mean"].rename(columns={"size": "number", "top_1": "top1"})
    return pd.concat([*parts, curve.assign(varied=INDIVIDUALS)], ignore_index=True)[columns]


def needed_in_words(table: pd.DataFrame) -> str:
    """What a table of `needed` says to somebody who plans what to photograph."""
    if table.empty:
        return "No individual was photographed in two encounters: more photos of each are needed."
    photos, people = (table[table["varied"] == what] for what in (PHOTOS, INDIVIDUALS))
    one, every, few, many = (own.iloc[place] for own in (photos, people) for place in (0, -1))
    enough = photos["number"][photos["top1"] >= every["top1"] - ENOUGH].iloc[0]
    return (
        f"With one photo of each individual the right one comes first in {one['top1']:.0f} % of "
        f"searches, with all (at most {every['number']}, each of another encounter) in "
        f"{every['top1']:.0f} %, and {enough} of each come within {ENOUGH} points of that. Among "
        f"{few['number']} individuals it comes first in {few['top1']:.0f} %, among "
        f"{many['number']} in {many['top1']:.0f} %: expect less as a catalog grows."
    )


def headline(table: pd.DataFrame, page: Path, weights: str = "", role: str = "") -> str:
    """A table of `success` in three sentences, with the place of the review `page`.

    `weights`: of the measured network, as given to `choose`; `role`: of the one that identifies.
    """
    page = Path(page).resolve()
    page = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
    mean, place = table.iloc[-1], f"Decide on the page `{page.as_posix()}`."
    if role == FINAL:
        place += f" Its candidates are by the {FINAL}, which was trained on all known photos."
    if np.isnan(mean["top1"]):
        return (
            "No individual has two encounters among the photos that the network hasn't learned, so "
            f"how well it works isn't known. {place}"
        )
    if weights and not weights_file(weights).with_name("rows.csv").is_file():
        place = f"{UNKNOWN} {place}"
    network = "network of your weights" if weights else "multi-species network"
    first, ten = (
        "{:.0f} to {:.0f}".format(*mean[[f"top{k}_low", f"top{k}_high"]]) for k in (1, 10)
    )
    count = table["top1"][:-1].notna().sum()
    return (
        f"On average over {count} species, the {'measured ' * (role == FINAL)}{network} "
        f"puts the right individual first in {mean['top1']:.0f} % of searches, and among the ten "
        f"on the page in {mean['top10']:.0f} %. 95 % intervals: {first} and {ten}; ten individuals "
        f"drawn at random would hold it in {mean['chance10']:.0f} %; {mean['queries']:,} searches. "
        f"{place}"
    )


def in_words(table: pd.DataFrame) -> str:
    """What the species of a table of `success` with few individuals can't tell."""
    lines = []
    for row in table[:-1][table["individuals"][:-1] < FEW].itertuples():
        n, words = row.individuals, "no individual has two encounters among the tested photos."
        if row.queries:
            failures = 100 * (1 - 0.05 ** (1 / n))  # that n successes don't exclude, at 95 %
            words = (
                f"{row.top1:.0f} % of {row.queries} searches, guessing {row.chance1:.0f} %. So few "
                f"individuals tell little: even {n} successes with {n} leave room for "
                f"{failures:.0f} % of failures, and a search is easier than it will be later."
            )
        lines.append(f"- **{spelt(row.species)}**: {words}")
    return "\n".join(lines) or f"Each species has {FEW} tested individuals or more."


# ---- the photos to identify


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
    sizes = [
        table["path"].map(lambda path: Path(path).stat().st_size) for table in (queries, known)
    ]
    asked, known = (  # only files of one size can be copies: no others are read
        table[own.isin(other)].assign(content=lambda rows: rows["path"].map(file_digest))
        for table, own, other in ((queries, *sizes), (known, *sizes[::-1]))
    )
    pairs = asked.merge(known, on="content", suffixes=("", "_known"))
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


# ---- who they may be


def candidates(
    known: Embeddings, queries: Embeddings, k: int = 5, fusion: Fusion | None = None
) -> pd.DataFrame:
    """The k individuals most like each query, each by its photo that is nearest by cosine.

    Returns COLUMNS, one row per query and candidate, best first: query and match are annotation
    ids, rank counts from 1, score is the cosine in [-1, 1]. With a `fusion` photos are ranked by
    its score in [0, 1] instead. A query of unknown species "" is compared with all. Raises
    ValueError for embeddings that can't be compared (see `search`).
    """
    parts = [_ranked(others, own, k, fusion) for own, others in by_species(queries, known)]
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)
    order = pd.Series(range(len(queries.rows)), queries.rows["annotation_id"])
    return found.sort_values("query", key=order.get, kind="stable", ignore_index=True)


def _ranked(known: Embeddings, queries: Embeddings, k: int, fusion: Fusion | None) -> pd.DataFrame:
    # however many photos k - 1 individuals have, one photo more belongs to another one
    enough = int(known.rows["individual"].value_counts().head(k - 1).sum()) + 1
    scores, rows = search(known, queries, len(known.rows) if fusion else enough)
    if fusion:
        ids = (of.rows["annotation_id"] for of in (queries, known))
        scores, rows = fusion.ranked(scores, rows, *ids)
    found = pd.DataFrame({"query": queries.rows["annotation_id"].repeat(scores.shape[1])})
    nearest = known.rows.iloc[rows.ravel()]
    found["individual"] = nearest["individual"].to_numpy()
    found["match"], found["score"] = nearest["annotation_id"].to_numpy(), scores.ravel()
    found = found.drop_duplicates(["query", "individual"])
    found["rank"] = found.groupby("query").cumcount() + 1
    return found.loc[found["rank"] <= k, COLUMNS]


def found_by(
    network: Network,
    photos: pd.DataFrame,
    queries: pd.DataFrame,
    known: pd.DataFrame,
    tested: Embeddings,
    scores: str = "",
) -> pd.DataFrame:
    """The ten `candidates` of each query by a network, with another matcher's `scores` or without.

    `photos`: all catalog rows, of which `known` are searched. `tested`, embeddings by the measured
    network, calibrate the scores (see `fusion`).
    """
    asked, database = network.embed(queries), network.embed(photos).those_in(known)
    return candidates(database, asked, 10, from_file(scores, tested, database, asked))


# ---- the review


def save_review(
    found: pd.DataFrame,
    queries: pd.DataFrame,
    known: pd.DataFrame,
    page: Path,
    title: str,
    network: Network,
    report: threshold.Report | None,
) -> None:
    """Write the review's page, with what `report` says of each first score.

    It holds for cosines of the measured network alone: None for those fused with other scores.
    """
    stated = report and network.role != FINAL
    notes = threshold.notes(found, report.thresholds, report.calibrations) if stated else {}
    maps = explain.overlays(network, found, queries, known)
    review.save_page(found, queries, known, page, title, notes, network.role, maps)


def write_review(
    study: Study,
    photos: str,
    weights: str = "",
    final: bool = False,
    scores: str = "",
    false_matches: float = 0.1,
    **where: str | bool,
) -> str:
    """Notebook 12 in one call: the page to identify `photos` on; returns what was done, in words.

    It is written into the study's `figures_dir`. Parameters are the notebook's; `where`: WHERE.
    """
    known_photos = with_dates(study.annotations)
    # first, as a wrong folder is not to be told of after hours of training
    queries, known = to_identify(known_photos, study.test, photos, study.seed, **where)
    measured = choose(study, weights)
    everything = measured.embed(known_photos)
    tested = everything.those_in(measured.tested)
    searches = threshold.searches(tested, everything, measured.learned)
    report = None if scores else threshold.report(searches, false_matches, study.seed)
    network = final_network(study, measured, known, weights, scores) if final else measured
    found = found_by(network, known_photos, queries, known, tested, scores)
    title = f"Who is this? · {subtitle(study, weights)} · {network.role}"
    folder = study.figures_dir
    page = folder / "review.html"
    save_review(found, queries, known, page, title, network, report)
    review.save_csv(review.sheet(found, queries, network.role), folder / "review.csv")
    told = pd.concat([notices(known_photos), notices(queries)])
    review.save_csv(told, folder / "notices.csv")
    lines = [
        f"{len(queries):,} photos to identify, {len(known):,} known ones of "
        f"{known['individual'].nunique():,} individuals, {len(told):,} notices.",
        *dict.fromkeys(f"The {one.role}: {one.words}" for one in (measured, network)),
        headline(success(tested, measured.learned), page, weights, network.role),
        f"Page: {page} ({page.stat().st_size / 1e6:.1f} MB). Beside it lie review_photos (keep it "
        "there), review.csv (the page as a sheet) and notices.csv.",
        f"Network: {measured.weights} (give it as --weights, and it isn't trained again)",
    ]
    return "\n".join(lines)
