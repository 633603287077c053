"""What sightings become: capture histories, and files for MARK, secr and Camtrap DP 1.0."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from miewid_core.beyond_paper.identify.review import KEYS, refuse, save_csv
from miewid_core.catalog import PLACE
from miewid_core.figures import spelt
from miewid_core.files import digest, replacing
from miewid_core.paper.intervals import Estimate
from miewid_core.paper.study import Study
from miewid_core.readers.load import read_dates
from miewid_core.readers.sources import read_table

PERIODS = {"D": "%Y-%m-%d", "W": "%Y-%m-%d", "M": "%Y-%m", "Q": "%Y-%m-%d", "Y": "%Y"}
EARTH = 6_371_008.8  # metres, its mean radius
OBSERVATION = [  # the fields of Camtrap DP 1.0's observations, in order
    *["observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd"],
    *["observationLevel", "observationType", "cameraSetupType", "scientificName", "count"],
    *["lifeStage", "sex", "behavior", "individualID", "individualPositionRadius"],
    *["individualPositionAngle", "individualSpeed", "bboxX", "bboxY", "bboxWidth", "bboxHeight"],
    *["classificationMethod", "classifiedBy", "classificationTimestamp"],
    *["classificationProbability", "observationTags", "observationComments"],
]


def read_occasions(path: Path | str) -> pd.DataFrame | None:
    """The sampled occasions in a CSV with columns start and end, in order; None for "".

    `end` is the last day. Raises ValueError naming the lines to mend.
    """
    if not path:
        return None
    rows, _, _ = read_table(Path(path).expanduser())
    if not {"start", "end"} <= set(rows) or rows.empty:
        raise ValueError(f"{path}: give each sampled occasion a row with columns start and end")
    days = rows[["start", "end"]].apply(lambda own: read_dates(own)["date"].dt.normalize())
    days = days.sort_values("start", kind="stable")
    faults = {
        "start or end is no date: write it as 2024-05-31": days.isna().any(axis=1),
        "it ends before it starts": days["end"] < days["start"],
        "it starts before the one before it has ended": days["start"] <= days["end"].shift(),
    }
    refuse(path, rows["row"][days.index], faults)
    return days.reset_index(drop=True)


def capture_histories(
    seen: pd.DataFrame, occasion: str = "D", occasions: pd.DataFrame | None = None
) -> pd.DataFrame:
    """A row per animal, a column per occasion: 1 where it was seen, else 0.

    `seen`: of `review.sightings`; those without date don't count. Columns KEYS, then the occasions:
    with `occasions` (of `read_occasions`) all sampled ones, and sightings outside don't count;
    without, time by `occasion`, "D" day, "W" week, "M" month, "Q" quarter or "Y" year, and one on
    which nobody was seen has no column, as whether anyone looked isn't known. Raises ValueError for
    another occasion.
    """
    if occasion not in PERIODS:
        raise ValueError(f'occasion is {occasion!r}: take "D", "W", "M", "Q" or "Y"')
    dated = seen[seen["datetime"].notna() & (seen["individual"] != "")]
    if occasions is None:
        when = dated["datetime"].dt.to_period(occasion).dt.start_time.dt.strftime(PERIODS[occasion])
        names = sorted(when.unique())
    else:
        start, end = (occasions[name].dt.strftime(PERIODS["D"]) for name in ("start", "end"))
        names = start + " to " + end
        places = _places(dated, occasions)
        dated, when = dated[places >= 0], names.to_numpy()[places[places >= 0]]
    table = pd.crosstab([dated[name] for name in KEYS], when).clip(upper=1)
    table = table.reindex(columns=list(names), fill_value=0).rename_axis(columns=None)
    return table.reset_index()


def _places(seen: pd.DataFrame, occasions: pd.DataFrame) -> np.ndarray:
    """(N,) The row of the occasion of each sighting, -1 for none."""
    days = seen["datetime"].dt.normalize().to_numpy()
    place = occasions["start"].searchsorted(days, side="right") - 1
    within = (place >= 0) & (days <= occasions["end"].dt.normalize().to_numpy()[place])
    return np.where(within, place, -1)


def mark(histories: pd.DataFrame, facts: str) -> dict[str, str]:
    """MARK's `.inp` of each species: its animals' histories, `facts` in the comment at the head."""
    texts = {}
    for species, own in histories.groupby("species"):
        names = [name for name in own if name not in KEYS]
        head = f"{species}: {len(names)} occasions ({', '.join(names)}); {facts}"
        animals = own["individual"].str.replace("*/", "* /", regex=False)
        seen = own[names].astype(str).agg("".join, axis=1)
        lines = [f"/* {head.replace('*/', '* /')} */", *("/* " + animals + " */ " + seen + " 1;")]
        texts[species] = "\n".join(lines) + "\n"
    return texts


def secr(seen: pd.DataFrame, occasions: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """The text of secr's captures and detectors of each species, for `read.capthist`.

    Detectors are stations, in metres east and north of the mean of all. Raises ValueError for a
    station without coordinates or with several.
    """
    placed = seen[(seen["station"] != "") & (seen["individual"] != "")]
    degrees = placed[PLACE[1:]].apply(pd.to_numeric, errors="coerce")
    placed = placed.assign(**degrees, detector=_identifiers(placed["station"]))
    spots = placed.drop_duplicates(["station", *PLACE[1:]])
    wrong = spots["station"].duplicated(keep=False) | spots[PLACE[1:]].isna().any(axis=1)
    if wrong.any():
        names = ", ".join(sorted(set(spots.loc[wrong, "station"])))
        raise ValueError(f"station {names}: give each one latitude and one longitude, in degrees")
    if spots.empty:
        return {}
    radians = np.radians(spots[PLACE[1:]].to_numpy(float))
    north, east = (EARTH * (radians - radians.mean(axis=0))).T
    east *= np.cos(radians[:, 0].mean())
    traps = zip(spots["detector"], east, north, strict=True)
    detectors = "# Detector x y; add those where nobody was seen\n"
    detectors += "".join(f"{name} {x:.1f} {y:.1f}\n" for name, x, y in sorted(traps))
    placed = placed.assign(animal=_identifiers(placed["individual"]), at=_places(placed, occasions))
    caught = placed[placed["at"] >= 0].drop_duplicates(["species", "animal", "at", "detector"])
    texts = {}
    for species, own in caught.sort_values(["animal", "at", "detector"]).groupby("species"):
        rows = "1 " + own["animal"] + " " + (own["at"] + 1).astype(str) + " " + own["detector"]
        texts[species] = "\n".join(["# Session ID Occasion Detector", *rows, ""]), detectors
    return texts


def _identifiers(names: pd.Series) -> pd.Series:
    """The names as secr takes them, different ones different: no blank, comma, quote, _ or #."""
    told: dict[str, str] = {}
    for name in names.unique():
        plain = again = re.sub(r"[\s,_#/'\"]+", "-", name)
        number = 2
        while again in told.values():
            again, number = f"{plain}-{number}", number + 1
        told[name] = again
    return names.map(told)


def camtrap(seen: pd.DataFrame) -> pd.DataFrame:
    """The sightings with date and station as OBSERVATION, media-based; a station is a deployment.

    The standard asks for a time zone, which cameras don't know: their time is given as UTC.
    """
    names = {"station": "deploymentID", "photo": "mediaID", "encounter": "eventID"}
    names |= {"individual": "individualID", "reviewer": "classifiedBy"}
    rows = seen[seen["datetime"].notna() & (seen["station"] != "")].rename(columns=names)
    times = dict.fromkeys(OBSERVATION[4:6], rows["datetime"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    sure = ("certainty:" + rows["certainty"]).where(rows["certainty"] != "", "")
    fixed = {"observationLevel": "media", "observationType": "animal", "count": 1}
    rows = rows.assign(**times, **fixed, classificationMethod="human", observationTags=sure)
    rows["observationID"] = [f"observation-{number}" for number in range(1, len(rows) + 1)]
    rows["scientificName"] = rows["species"].map(spelt)
    return rows.reindex(columns=OBSERVATION, fill_value="")


def save(
    study: Study,
    seen: pd.DataFrame,
    histories: pd.DataFrame,
    occasions: pd.DataFrame | None,
    decided: pd.DataFrame,
    queries: pd.DataFrame,
    thresholds: Mapping[str, Estimate],
) -> str:
    """Write sightings, histories, and what `occasions` and stations allow; tells it in words."""
    folder, texts, refused = study.figures_dir, {}, ""
    placed = (seen["station"] != "").any()
    tables = {"your_animals_sightings.csv": seen, "your_animals_captures.csv": histories}
    for name, table in tables.items():
        save_csv(table, folder / name)
    study.note(*tables)
    if occasions is not None:
        limits = [f"{name} {limit.value:.3f}" for name, limit in sorted(thresholds.items())]
        facts = f"threshold {', '.join(limits) or 'none'}; decisions "
        facts += f"{digest(decided.to_csv())[:16]}, {len(queries) - len(decided)} photos undecided"
        texts |= {f"{name}.inp": text for name, text in mark(histories, facts).items()}
        try:
            of_secr = secr(seen, occasions)
        except ValueError as error:  # what the others need is there
            of_secr, refused = {}, f"No file for secr: {error}."
        for name, two in of_secr.items():
            texts |= {f"{name}_captures.txt": two[0], f"{name}_detectors.txt": two[1]}
    if placed:
        texts["observations.csv"] = camtrap(seen).to_csv(index=False)
    for name, text in texts.items():
        with replacing(folder / "exports" / name.replace("/", "-")) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    count, dated = len(histories.columns) - len(KEYS), seen[seen["datetime"].notna()]
    outside = 0 if occasions is None else (_places(dated, occasions) < 0).sum()
    told = {
        f"{len(histories):,} animals on {count:,} occasions.": True,
        f"{len(seen) - len(dated):,} sightings have no date.": len(dated) < len(seen),
        f"{outside:,} sightings lie outside the sampled occasions.": outside,
        "No file for MARK and secr, which need a zero for each sampled occasion on which nobody "
        "was seen: give `occasions`, a CSV with the start and end of each. A 0 doesn't say that "
        "anyone looked: don't model it as a non-detection.": occasions is None,
        "No file for secr and Camtrap DP, which need stations: the catalog has no column "
        "`station`.": not placed,
        refused: refused,
        f"In `exports`: {', '.join(sorted(texts))}.": texts,
    }
    return " ".join(words for words, said in told.items() if said)
