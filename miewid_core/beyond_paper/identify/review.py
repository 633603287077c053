"""The review of candidates: a page for a browser, a sheet, decisions, sightings."""

import base64
import csv
import hashlib
import html
import io
import json
import re
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from miewid_core import progress
from miewid_core.catalog import PLACE, individuals, sides
from miewid_core.files import digest, replacing
from miewid_core.photos import crop, read_reduced
from miewid_core.readers.load import readings
from miewid_core.readers.sources import read_table

TEMPLATE = Path(__file__).with_name("review.html")
COLUMNS = ["query", "file", "species", "date", "decision", "individual", "score"]
# of a decision; `filter`: of candidates, in words; `network`: that found them, by its role
OPTIONAL = ["certainty", "reviewer", "filter", "network"]
KEYS = ["species", "individual"]  # of an animal, whichever side a photo shows
DECISIONS = ("accept", "new", "reject")  # a candidate; an unknown animal; none, can't be told
CERTAINTY = ("certain", "probable", "possible")
SIGHTING = [
    *["photo", "individual", "species", "datetime", "encounter", *PLACE],
    *["side", "method", "reviewer", "certainty"],
]
PHOTOS = 4  # of a candidate at most
SMALL, LARGE, QUALITY = 200, 1000, 72  # pixels of a photo's longer side, JPEG quality
OVERLAY = 64  # pixels of an overlay's longer side
# at the start of a cell a spreadsheet takes these for a formula; the apostrophe shows ours
FORMULA = re.compile(r"^\s*[=+\-@\t\r\n'＝＋－＠]")


def neutral(text: str) -> str:
    """Text that no spreadsheet runs: an apostrophe before what could be a formula."""
    return "'" + text if FORMULA.match(text) else text


def original(text: str) -> str:
    """What `neutral` was given."""
    return text.removeprefix("'")


def save_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table for spreadsheets: all cells quoted, text `neutral`, UTF-8 with its mark."""
    safe = table.map(lambda cell: neutral(cell) if isinstance(cell, str) else cell)
    safe.columns = [neutral(str(name)) for name in table.columns]
    with replacing(Path(path)) as temporary:
        safe.to_csv(temporary, index=False, quoting=csv.QUOTE_ALL, encoding="utf-8-sig")


def refuse(source: object, lines: pd.Series, faults: Mapping[str, pd.Series]) -> None:
    """Raise ValueError naming the first lines of a table at fault, by what is wrong with each."""
    told = [f"{line}: {words}" for words, bad in faults.items() for line in lines[[*bad]]]
    if told:
        more = [f"and {len(told) - 20:,} more"] * (len(told) > 20)
        raise ValueError(f"{source}: {'; '.join([*told[:20], *more])}")


def sheet(found: pd.DataFrame, queries: pd.DataFrame, network: str = "") -> pd.DataFrame:
    """One row per query to be filled in: COLUMNS, and each candidate with its score, best first.

    `found`: of `candidates.rank`, by the `network` of that role; `queries`: catalog rows. In
    `decision` goes one of DECISIONS, in `individual` whom it accepts, or a name for a new animal;
    `certainty` (one of CERTAINTY) and `reviewer` may stay empty. Read it with `read`.
    """
    rows = pd.DataFrame(
        {
            "query": queries["annotation_id"],
            "file": queries["path"].map(lambda path: Path(path).name),
            "species": queries["species"],
            "date": pd.to_datetime(queries["date"]).dt.strftime("%Y-%m-%d").fillna(""),
        }
    ).assign(decision="", individual="", score="", certainty="", reviewer="", network=network)
    best = found.rename(columns={"individual": "best"})
    wide = best.pivot(index="query", columns="rank", values=["best", "score"])
    wide = wide.swaplevel(axis=1).sort_index(axis=1)
    return rows.join(wide.set_axis([f"{name}_{k}" for k, name in wide], axis=1), on="query")


def save_page(
    found: pd.DataFrame,
    queries: pd.DataFrame,
    known: pd.DataFrame,
    path: Path,
    title: str,
    notes: dict[str, str] | None = None,
    network: str = "",
    maps: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write the page on which queries are decided, and a folder of enlarged photos beside it.

    `found`: of `candidates.rank`; `queries`, `known`: catalog rows, with `station` where given.
    `notes`: words for some queries, by annotation id; those of a column `note` come first.
    `network`: which one found the candidates; the page shows it, and notes it with each decision.
    `maps`: of `explain.overlays`, which a switch lays over the photos, 2 kB a photo.
    It holds its thumbnails, works without the folder, loads nothing from the network and sends
    nothing. Decisions stay in the browser until they are exported as CSV. All photos are drawn
    anew: what a camera wrote into its files, such as a place, isn't in them.
    """
    path = Path(path)
    folder = path.with_name(f"{path.stem}_photos")
    queries, known = _with_keys(queries, "query"), _with_keys(known, "known")
    cards = _cards(found, queries, known, notes or {}, maps or {})
    keys = {card["photo"] for card in cards}
    keys |= {key for card in cards for one in card["candidates"] for key in one["photos"]}
    rows = [*queries.itertuples(), *known.itertuples()]
    photos = {row.key: row for row in rows if row.key in keys}
    thumbnails = _draw(photos, folder)
    shown = {key: _facts(row) | {"image": thumbnails[key]} for key, row in photos.items()}
    content = {"cards": cards, "photos": shown, "folder": f"{folder.name}/", "network": network}
    page = _page(content, title)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def _with_keys(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Catalog rows with the key that names their photo, and the side that it shows."""
    keys = [digest(kind, annotation)[:12] for annotation in rows["annotation_id"]]
    return rows.assign(key=keys, side=sides(rows["viewpoint"]))


def _facts(row: tuple) -> dict[str, str]:
    date = "" if pd.isna(row.date) else f"{row.date:%Y-%m-%d}"
    return {"date": date, "side": row.side, "site": getattr(row, "station", "")}


def _cards(
    found: pd.DataFrame,
    queries: pd.DataFrame,
    known: pd.DataFrame,
    notes: dict[str, str],
    maps: Mapping[str, np.ndarray],
) -> list[dict[str, object]]:
    """What the page shows of each query; photos by their keys."""
    # an individual's photos: one of each encounter first, the latest first
    rows = known.sort_values("date", ascending=False, kind="stable")
    again = (rows["encounter"] != "") & rows.duplicated(["individual", "encounter"])
    rows = rows.assign(again=again).sort_values("again", kind="stable")
    rows = rows[rows["individual"].isin(found["individual"])]
    photos = {name: list(own.itertuples()) for name, own in rows.groupby("individual")}
    cards = []
    for row, query in zip(sheet(found, queries).itertuples(), queries.itertuples(), strict=True):
        words = getattr(query, "note", ""), notes.get(row.query, "")
        card = {name: getattr(row, name) for name in COLUMNS[:4]}
        card |= {"photo": query.key, "note": "; ".join(filter(None, words))}
        card |= {"candidates": [], "maps": {}}
        for one in found[found["query"] == row.query].itertuples():
            own = photos[one.individual]  # first the nearest, then those of the query's side
            own = sorted(own, key=lambda p: (p.annotation_id != one.match, p.side != query.side))
            candidate = {"individual": one.individual, "species": own[0].species}
            candidate["name"] = one.individual.removeprefix(f"{own[0].species}/")
            candidate["score"] = round(float(one.score), 4)
            candidate["photos"] = [photo.key for photo in own[:PHOTOS]]
            if row.query in maps and not card["candidates"]:
                pair = zip((query, own[0]), maps[row.query], strict=True)
                card["maps"] = {photo.key: _overlay(places, photo) for photo, places in pair}
            card["candidates"].append(candidate)
        cards.append(card)
    return cards


def _overlay(places: np.ndarray, row: tuple) -> str:
    """A red PNG, base64, of the photo's aspect, that covers what is relevant: (h, w) in [0, 1]."""
    scale = OVERLAY / max(row.w, row.h)
    size = tuple(max(1, round(scale * side)) for side in (row.w, row.h))
    opaque = Image.fromarray((200 * places).astype(np.uint8)).resize(size)
    red = Image.new("RGBA", size, "#c00000")
    red.putalpha(opaque.point(lambda value: value & 0xF0))  # half as large
    with io.BytesIO() as whole:
        red.save(whole, "png", optimize=True)
        return base64.b64encode(whole.getvalue()).decode()


def _draw(photos: dict[str, tuple], folder: Path) -> dict[str, str]:
    """Write the enlarged photos; returns the thumbnails, base64 JPEG, by the same keys."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.jpg"):
        if path.stem not in photos:  # of an earlier page
            path.unlink()
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        where = [folder / f"{key}.jpg" for key in photos]
        made = progress(pool.map(_draw_one, photos.values(), where), "review", len(photos))
        return dict(zip(photos, made, strict=True))


def _draw_one(row: tuple, path: Path) -> str:
    """Write a photo's box, its aspect kept, its longer side at most LARGE pixels."""
    box = (row.x, row.y, row.w, row.h)
    pixels, scale = read_reduced(row.path, min(1.0, LARGE / max(box[2:])))
    image = Image.fromarray(crop(pixels, tuple(scale * side for side in box), row.theta))
    image.thumbnail((LARGE, LARGE))
    image.save(path, "jpeg", quality=QUALITY)
    image.thumbnail((SMALL, SMALL))
    with io.BytesIO() as whole:
        image.save(whole, "jpeg", quality=QUALITY, optimize=True)
        return base64.b64encode(whole.getvalue()).decode()


def _page(content: dict[str, object], title: str) -> str:
    """The template with its data. Only its own style and script may run, by their hashes."""
    # but for maps, whose last bits differ between machines
    decided_on = [card | {"maps": {}} for card in content["cards"]]
    data = json.dumps(content | {"key": digest(json.dumps(decided_on))[:16]})
    # in a script element only these could end it; the page puts all text in as text
    data = data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    page = TEMPLATE.read_text(encoding="utf-8")
    allowed = [
        f"{kind}-src '{_hash(re.search(rf'<{kind}>(.*?)</{kind}>', page, re.DOTALL).group(1))}'"
        for kind in ("style", "script")
    ]
    policy = ["default-src 'none'", "img-src 'self' file: data:", *allowed, "base-uri 'none'"]
    parts = {"policy": "; ".join([*policy, "form-action 'none'"]), "data": data}
    parts["title"] = html.escape(title)
    return re.sub(r"\{\{(policy|title|data)\}\}", lambda place: parts[place.group(1)], page)


def _hash(text: str) -> str:
    """A hash as policies write it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def read(path: Path | str, queries: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """The decisions in a CSV that the page exported, or in a `sheet` that was filled in.

    `queries`, `known`: catalog rows. Returns COLUMNS and OPTIONAL ("" where the file has none) of
    the decided rows, as text but for date (the query's own; NaT where unknown) and score. Accepted
    names become individuals of the query's species. Raises ValueError naming the lines to mend.
    """
    rows, _, _ = read_table(Path(path).expanduser())
    missing = [name for name in COLUMNS if name not in rows]
    if missing:
        raise ValueError(f"{path}: no column {', '.join(missing)}; export it from the page again")
    cells = [*COLUMNS, *OPTIONAL]
    rows[cells] = rows.reindex(columns=cells, fill_value="").fillna("").map(original)
    for name in ("decision", "certainty"):
        rows[name] = rows[name].str.strip().str.lower()
    names, page = rows["individual"].str.strip(), queries.set_index("annotation_id")
    species, taken = (rows["query"].map(page[name]) for name in ("species", "date"))
    labels = pd.DataFrame({"species": species.fillna(""), "name": names, "viewpoint": ""})
    whole = _whole_names(labels, known)
    days = [_day(text, own) for text, own in zip(rows["date"], taken, strict=True)]
    wrong = _faults(rows, whole, species, known)
    wrong["date can be two days, or none: write it as 2024-05-31"] = pd.Series(days) == ""
    refuse(path, rows["row"], wrong)
    bare = [name.removeprefix(f"{own}/") for name, own in zip(names, species, strict=True)]
    rows["individual"] = whole.where(rows["decision"] == "accept", bare)  # as new ones are called
    rows["date"] = pd.to_datetime(pd.Series(days, dtype=object))
    rows["score"] = pd.to_numeric(rows["score"], errors="coerce")
    return rows.loc[rows["decision"] != "", cells].reset_index(drop=True)


def _whole_names(labels: pd.DataFrame, known: pd.DataFrame) -> pd.Series:
    """Individuals as in the catalog: a name alone is one of the query's species, where known."""
    names, species = labels["name"], labels["species"]
    begins = [name.startswith(f"{own}/") for name, own in zip(names, species, strict=True)]
    whole = np.array(begins) | names.isin(["", *known["individual"]]) | (species == "")
    return names.where(whole, individuals(labels))


def _day(text: str, taken: datetime) -> datetime | str | None:
    """The day in a sheet's cell: the query's, if it can be meant; "" for what is none or two."""
    days = {pd.Timestamp(day).normalize() for day in readings(text)}
    own = None if pd.isna(taken) else pd.Timestamp(taken).normalize()
    if text.strip() == "" or own in days:
        return own
    return days.pop() if len(days) == 1 else ""


def _faults(
    rows: pd.DataFrame, names: pd.Series, species: pd.Series, known: pd.DataFrame
) -> dict[str, pd.Series]:
    """Which rows can't be right, by what is wrong with them.

    `names`: individuals as in the catalog; `species`: the query's, NaN where it is none of ours.
    """
    accept, new = (rows["decision"] == decision for decision in DECISIONS[:2])
    decided, named = rows["decision"] != "", names != ""
    there, folded = names.isin(known["individual"]), names.str.casefold()
    alike = folded.isin(known["individual"].str.casefold())
    of = names.map(known.drop_duplicates("individual").set_index("individual")["species"])
    spellings = names.where(new).groupby(folded).transform("nunique")
    return {
        f"decision is none of {', '.join(DECISIONS)}": ~rows["decision"].isin(["", *DECISIONS]),
        "accept and new need an individual": (accept | new) & ~named,
        f"certainty is none of {', '.join(CERTAINTY)}": ~rows["certainty"].isin(["", *CERTAINTY]),
        "this query is not on the page": decided & species.isna(),
        "this query is decided twice": decided
        & rows["query"].where(decided).duplicated(keep=False),
        "accepts an individual that isn't known: write it as on the page": accept & named & ~there,
        "accepts an individual of another species": (
            accept & there & (of != species) & (species.fillna("") != "")
        ),
        "calls an animal new that is known: accept it, or name it otherwise": new & named & alike,
        "spells a new animal in two ways: write it as elsewhere": new & (spellings > 1),
    }


def decisions(
    found: pd.DataFrame, queries: pd.DataFrame, known: pd.DataFrame, reviewed: Path | str = ""
) -> pd.DataFrame:
    """What was decided: `read` from a file `reviewed`, or else as the truth has it, where known.

    The truth is each query's `individual`, "" where unknown: that stays undecided. Who knows it
    accepts the right candidate, calls new whoever isn't among the `known`, and rejects the rest.
    """
    if reviewed:
        return read(reviewed, queries, known)
    rows = sheet(found, queries)[COLUMNS].assign(individual=queries["individual"].to_numpy())
    rows = rows[rows["individual"] != ""].drop(columns="score")
    scores = found[["query", "individual", "score"]]
    rows = rows.merge(scores, "left", on=["query", "individual"])
    new = ~rows["individual"].isin(known["individual"])
    rows["decision"] = np.select([rows["score"].notna(), new], ["accept", "new"], "reject")
    rows["individual"] = rows["individual"].mask(rows["decision"] == "reject", "")
    return rows.assign(date=pd.to_datetime(rows["date"].mask(rows["date"] == "")))[COLUMNS]


def sightings(
    annotations: pd.DataFrame, queries: pd.DataFrame, decided: pd.DataFrame
) -> pd.DataFrame:
    """A row of SIGHTING for each photo that counts as one; "" (no date: NaT) where unknown.

    `annotations`: catalog rows of known animals, those held back included. `queries`: catalog rows
    of the photos reviewed; of these only the `decided` ones that were accepted or called new count.
    An individual is the animal by its name: where left and right side are told apart, both are it.
    """
    known = annotations[~annotations["annotation_id"].isin(queries["annotation_id"])]
    known = known.assign(individual=known["name"], method="catalog")
    named = decided[decided["decision"].isin(DECISIONS[:2])]
    named = named.reindex(columns=["query", *KEYS, "date", *OPTIONAL], fill_value="")
    animals, names = annotations.drop_duplicates("individual").set_index("individual"), {}
    for column, called in (("species", "species"), ("individual", "name")):
        names[column] = named["individual"].map(animals[called]).fillna(named[column])
    method = "review" + (", candidates by the " + named["network"]).where(
        named["network"] != "", ""
    )
    named = named.assign(annotation_id=named["query"], method=method, **names)
    taken = queries.reindex(columns=["annotation_id", "date", "encounter", "viewpoint", *PLACE])
    named = named.merge(taken, "left", on="annotation_id", suffixes=("", "_taken"))
    day, when = (pd.to_datetime(named[name]) for name in ("date", "date_taken"))
    named["date"] = when.where(when.dt.normalize() == day, day)  # a sheet has days, photos times
    seen = pd.concat([known, named], ignore_index=True)
    seen = seen.rename(columns={"annotation_id": "photo", "date": "datetime"})
    seen = seen.reindex(columns=[*SIGHTING, "viewpoint"])
    text = seen.drop(columns="datetime").astype(object).fillna("")
    text["side"] = sides(text["viewpoint"])
    return seen.assign(datetime=pd.to_datetime(seen["datetime"]), **text)[SIGHTING]
