"""The claims of the paper that a number can check (`claims.csv`), each recomputed and judged."""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from operator import gt, lt

import numpy as np
import pandas as pd

from miewid_core.paper.audit import recount
from miewid_core.paper.audit.recount import Recounted, exactly
from miewid_core.paper.printed import FOLDER, PRINTED, printed_table

CLAIMS = FOLDER / "claims.csv"
APPENDIX = {"image_size": 256, "sub_centers": 3}  # A.1
FEATURES = {"efficientnetv2_rw_m": 2152, "tf_efficientnetv2_m": 1280}  # timm's num_features
WEIGHTS = ["headline", "detail", "rounding or our reading"]
SMALL = (1000, 500, 250)  # annotations of a species


def listed() -> pd.DataFrame:
    """The claims as data: id, claim, where, printed, how it is recomputed, reasons, weight; text.

    `recomputed_from`: in words; `rows_where`: where rows of a table of `recount` are counted, which
    table and on what condition. `weight` is ours: a "headline" of the paper, a "detail", or
    "rounding or our reading".
    """
    return pd.read_csv(CLAIMS, dtype=str, keep_default_na=False)


def printed_range(printed: str) -> tuple[float, float]:
    """Numbers that round to "12.5 %", "37K" or "all 33", or that "60+", "above 0", "below 0" allow.

    Raises ValueError if there is no number.
    """
    found = re.search(r"(-?[\d,]*\.?\d+(?:e-?\d+)?)(K?)(\+?)", printed)
    if not found:
        raise ValueError(f"there is no number in {printed!r}")
    number, scale = Decimal(found[1].replace(",", "")), 1000 if found[2] else 1
    half = Decimal(1).scaleb(number.as_tuple().exponent) / 2
    if found[3] or "above" in printed:
        return float(number * scale), np.inf
    if "below" in printed:
        return -np.inf, float(number * scale)
    return float((number - half) * scale), float((number + half) * scale)


def agreement(printed: str, found: Recounted) -> bool | None:
    """Do they agree at the printed precision? None: the range of `found` leaves it open."""
    low, high = printed_range(printed)
    low, high = low - 1e-9 * abs(low), high + 1e-9 * abs(high)
    if low <= found.low and found.high <= high:
        return True
    return False if found.high < low or found.low > high else None


def stated(claim: str) -> float:
    """The number that the paper prints in a claim, by id."""
    return sum(printed_range(listed().set_index("id").loc[claim, "printed"])) / 2


RECOUNT: dict[str, Callable[[], Recounted]] = {
    "species_total": lambda: recount.over_groupings(lambda by, cells: by.nunique()),
    "datasets_total": lambda: exactly(len(printed_table(1))),
    "individuals_rounded": lambda: exactly(PRINTED["individuals"]),
    "annotations_rounded": lambda: exactly(PRINTED["annotations"]),
    "individuals_total": recount.individuals_total,
    "annotations_total": recount.annotations_total,
    "per_individual_text": lambda: exactly(PRINTED["annotations"] / PRINTED["individuals"]),
    "per_individual_table": recount.per_individual,
    "above_10000_species": partial(recount.tail, gt, 10_000),
    "above_10000_sets": partial(recount.tail, gt, 10_000, of_sets=True),
    **{f"below_{bound}_species": partial(recount.tail, lt, bound) for bound in SMALL},
    **{f"below_{bound}_sets": partial(recount.tail, lt, bound, of_sets=True) for bound in SMALL},
    "one_grouping": lambda: recount.fitting_groupings(
        stated("species_total"), {bound: stated(f"below_{bound}_species") for bound in SMALL}
    ),
    "untrainable": recount.untrainable,
    "single_models": lambda: exactly(len(printed_table(2))),
    "gain_mean": partial(recount.gain, "mean"),
    "gain_mean_49": lambda: recount.gain_of_all(stated("species_total")),
    "gain_least": partial(recount.gain, "min"),
    "gain_most": partial(recount.gain, "max"),
    "order": recount.falling,
    "trend_annotations": lambda: recount.trend("gain", "annotations"),
    "trend_individuals": lambda: recount.trend("gain", "individuals"),
    "trend_unseen": lambda: recount.trend("seen_gain", "annotations"),
    "mega_species": lambda: exactly(len(printed_table(3))),
    "mega_pixels": lambda: exactly(int(printed_table(3).columns[1].split("_")[-1])),
    "mega_gain": partial(recount.gain, "mean", "mega_gain"),
    "mega_gain_unseen": partial(recount.gain, "mean", "unseen_gain"),
    "mega_significant": partial(recount.gain_interval, "mega_gain"),
    "rule_of_three": lambda: exactly(recount.steps()["shown"].min()),
    "tuned_trend": recount.falling_lead,
    "features_text": lambda: exactly(stated("features_appendix")),
    "features_rw": lambda: exactly(FEATURES["efficientnetv2_rw_m"]),
    "features_tf": lambda: exactly(FEATURES["tf_efficientnetv2_m"]),
    "features_appendix": lambda: exactly(FEATURES["efficientnetv2_rw_m"]),
    "image_size": lambda: exactly(APPENDIX["image_size"]),
    "sub_centers": lambda: exactly(APPENDIX["sub_centers"]),
}


def recounted(claim: dict[str, str]) -> Recounted:
    """The number of a claim (a row of `listed`), counted again."""
    if claim["recomputed_from"] == "not recomputable":
        return Recounted()
    if not claim["rows_where"]:
        return RECOUNT[claim["id"]]()
    table, condition = claim["rows_where"].split(": ")
    return exactly(len(getattr(recount, table)().query(condition)))


def in_figures(found: Recounted) -> str:
    """A number in words, with its range where the print leaves one."""
    value, low, high = (f"{x:,.2f}".rstrip("0").rstrip(".") for x in found[:3])
    if found.low == -np.inf:
        return "not printed"
    if found.high == np.inf:
        return f"at least {low}"
    if np.isnan(found.value):
        return f"{low} to {high}"
    return value if low == high else f"{value} ({low} to {high})"


def claims() -> pd.DataFrame:
    """Every claim, recomputed: `listed` with recomputed (words), agrees, low and high.

    `agrees` is missing where what is printed doesn't decide it; where it is True, `reasons` are
    empty. A claim that can be read in several ways has a row for each.
    """
    rows = []
    for row in listed().to_dict("records"):
        found = recounted(row)
        agrees = agreement(row["printed"], found)
        wider = found._replace(low=found.low - found.rounding, high=found.high + found.rounding)
        rounded = agrees is False and agreement(row["printed"], wider) is None
        reasons = "Rounding of the printed cells alone. " * rounded + row.pop("reasons")
        row |= {"reasons": "" if agrees else reasons, "agrees": agrees}
        rows.append(row | {"recomputed": in_figures(found), "low": found.low, "high": found.high})
    return pd.DataFrame(rows).astype({"agrees": "boolean"})


def worded(table: pd.DataFrame) -> pd.DataFrame:
    """`claims` for a reader: its columns in words, `agrees` as yes, no or open."""
    verdicts = table["agrees"].map({True: "yes", False: "no"}).astype(object).fillna("open")
    names = ["claim", "where", "printed", "recomputed", "recomputed_from", "agrees", "reasons"]
    shown = table.assign(agrees=verdicts)[names]
    return shown.rename(columns={"recomputed_from": "from", "reasons": "possible reasons"})


def by_claim(table: pd.DataFrame) -> pd.Series:
    """The verdict on each claim: True if one of its readings agrees, False if none can."""
    groups = table.groupby("claim", sort=False)["agrees"]
    return pd.Series({claim: own.any(skipna=False) for claim, own in groups}, dtype="boolean")


def answer(table: pd.DataFrame) -> str:
    """What the audit found: the mean gain in the text and by Table 2, and how many claims agree."""
    gain, verdicts = recount.gain("mean").value, by_claim(table)
    known, light = verdicts.notna().sum(), lost(table).query("weight == @WEIGHTS[-1]")
    return (
        f"The conclusions' directions hold in the printed tables, but the mean gain is "
        f"{stated('gain_mean'):g} points in the text and {gain:.1f} by Table 2. "
        f"Of {known} checkable claims {verdicts.sum()} agree at the printed precision and "
        f"{known - verdicts.sum()} don't ({light['claim'].nunique()} by rounding or our reading); "
        f"{len(verdicts) - known} more can't be decided from what is printed."
    )


def lost(table: pd.DataFrame) -> pd.DataFrame:
    """The readings of the claims that don't agree, those first on which most hangs."""
    verdicts = by_claim(table)
    disagree = table[table["claim"].isin(verdicts.index[verdicts.eq(False).fillna(False)])]
    return disagree.sort_values("weight", key=lambda own: own.map(WEIGHTS.index), kind="stable")


def directions() -> str:
    """On how many species or rows of the printed tables the paper's conclusions hold."""
    found, rows = recount.accuracy(), recount.steps().query("individuals > 0")
    mega, better = found["mega_gain"].dropna(), rows["joint_training"] > rows["species_only"]
    falls = in_figures(recount.trend("gain", "annotations"))
    return (
        f"The directions hold. The multi-species network is better for {(found['gain'] > 0).sum()} "
        f"of {len(found)} species, and the gain falls with a species' size (rank correlation "
        f"{falls}). The leave-one-out network is better than MegaDescriptor "
        f"for {(mega > 0).sum()} of {len(mega)} species. Joint training is better than the species "
        f"alone in {better.sum()} of {len(rows)} rows of Table 4."
    )
