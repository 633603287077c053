"""The claims of the paper that a number can check (`claims.csv`), each recomputed and judged."""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from operator import gt, lt

import numpy as np
import pandas as pd

from miewid_core.paper.audit import recount
from miewid_core.paper.audit.recount import Recounted, cases, exactly
from miewid_core.paper.printed import FOLDER, PRINTED, printed_table

CLAIMS = FOLDER / "claims.csv"
APPENDIX = {"image_size": 256, "sub_centers": 3}  # A.1
FEATURES = {"efficientnetv2_rw_m": 2152, "tf_efficientnetv2_m": 1280}  # timm's num_features
SMALL = {1000: "below_1000_species", 500: "below_500_species", 250: "below_250_species"}


def listed() -> pd.DataFrame:
    """The claims as data: id, claim, where, printed, recomputed_from, reasons; all of them text."""
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


def total(name: str) -> float:
    """A total that the paper's text states."""
    return float(PRINTED[name])


def same(name: str, other: str = "leave_one_out") -> Recounted:
    """Rows for no individuals whose accuracy is another column's, such as Table 2's."""
    rows = recount.at(0)
    return cases(rows[name] == rows[other])


def mega_same() -> Recounted:
    """Species whose MiewID accuracy in Table 3 is Table 2's leave-one-out."""
    own = recount.accuracy()
    return cases(own["miewid_leave_one_out"] == own["leave_one_out"])


def within_table1() -> Recounted:
    """Rows of Tables 4 and 5 with no more annotations than Table 1 has of the species."""
    rows = recount.at(*STEPS)
    return cases(rows["annotations"] <= rows["size"])


def one_grouping() -> Recounted:
    """Groupings that give the stated number of species and all three of small ones."""
    small = {bound: stated(claim) for bound, claim in SMALL.items()}
    return recount.fitting_groupings(stated("species_total"), small)


def columns_same() -> Recounted:
    """Rows whose annotations and species-only accuracy are the same in Tables 4 and 5."""
    rows = recount.steps().fillna(-1)
    same_annotations = rows["annotations"] == rows["annotations_5"]
    return cases(same_annotations & (rows["species_only"] == rows["species_only_5"]))


def trend_unseen() -> Recounted:
    """Rank correlation of multi-species minus leave-one-out with a species' annotations."""
    own = recount.accuracy()
    return recount.trend(own["multi_species"] - own["leave_one_out"], "annotations")


def rule_of_three() -> Recounted:
    """Fewest annotations per individual in Tables 4 and 5, at least one individual in training."""
    rows = recount.at(25, 50, 100, 200)
    return exactly((rows["annotations"] / rows["individuals"]).min())


def better(left: str, right: str, *individuals: int) -> Recounted:
    """Rows of Tables 4 and 5 with so many individuals in which `left` is above `right`."""
    rows = recount.at(*individuals)
    return cases(rows[left] > rows[right])


def positive(name: str) -> Recounted:
    """Species with a gain of this kind above 0."""
    return cases(recount.accuracy()[name] > 0)


STEPS = (25, 50, 100, 200)
RECOUNT: dict[str, Callable[[], Recounted]] = {
    "species_total": lambda: recount.over_groupings(lambda by, cells: by.nunique()),
    "datasets_total": lambda: exactly(len(printed_table(1))),
    "individuals_rounded": lambda: exactly(total("individuals")),
    "annotations_rounded": lambda: exactly(total("annotations")),
    "individuals_total": recount.individuals_total,
    "annotations_total": recount.annotations_total,
    "per_individual_text": lambda: exactly(total("annotations") / total("individuals")),
    "per_individual_table": recount.per_individual,
    "median_per_individual": Recounted,
    "above_10000_species": partial(recount.tail, gt, 10_000),
    "above_10000_sets": partial(recount.tail, gt, 10_000, of_sets=True),
    **{f"below_{bound}_species": partial(recount.tail, lt, bound) for bound in SMALL},
    **{f"below_{bound}_sets": partial(recount.tail, lt, bound, of_sets=True) for bound in SMALL},
    "one_grouping": one_grouping,
    "untrainable": recount.untrainable,
    "users": Recounted,
    "production_species": Recounted,
    "shared_individuals": Recounted,
    "test_maximum": Recounted,
    "single_models": lambda: exactly(len(printed_table(2))),
    "gain_mean": partial(recount.gain, "mean"),
    "gain_mean_49": lambda: recount.gain_of_all(stated("species_total")),
    "gain_least": partial(recount.gain, "min"),
    "gain_most": partial(recount.gain, "max"),
    "gain_negative": lambda: cases(recount.accuracy()["gain"] < 0),
    "order": recount.falling,
    "trend_annotations": lambda: recount.trend(recount.accuracy()["gain"], "annotations"),
    "trend_individuals": lambda: recount.trend(recount.accuracy()["gain"], "individuals"),
    "trend_unseen": trend_unseen,
    "whole_queries": lambda: cases(recount.queries()["queries_all"].notna()),
    "mega_species": lambda: exactly(len(printed_table(3))),
    "mega_unseen": Recounted,
    "mega_pixels": lambda: exactly(int(printed_table(3).columns[1].split("_")[-1])),
    "mega_better": partial(positive, "mega_gain"),
    "mega_better_unseen": partial(positive, "unseen_gain"),
    "mega_gain": partial(recount.gain, "mean", "mega_gain"),
    "mega_gain_unseen": partial(recount.gain, "mean", "unseen_gain"),
    "mega_significant": lambda: recount.mean_interval(recount.accuracy()["mega_gain"].dropna()),
    "mega_same": mega_same,
    "joint_zero": partial(same, "joint_training"),
    "tuned_zero": partial(same, "fine_tuning"),
    "zero_same": partial(same, "joint_training", "fine_tuning"),
    "columns_same": columns_same,
    "rule_of_three": rule_of_three,
    "within_table1": within_table1,
    "joint_some": lambda: cases(recount.at(25)["joint_training"] > recount.at(0)["joint_training"]),
    "joint_single": partial(better, "joint_training", "species_only", *STEPS),
    "tuned_small": partial(better, "fine_tuning", "species_only", 25, 50),
    "tuned_trend": recount.falling_lead,
    "single_large": partial(better, "species_only", "fine_tuning", 100, 200),
    "joint_tuned": partial(better, "joint_training", "fine_tuning", *STEPS),
    "database": Recounted,
    "swin": Recounted,
    "features_text": lambda: exactly(stated("features_appendix")),
    "features_rw": lambda: exactly(FEATURES["efficientnetv2_rw_m"]),
    "features_tf": lambda: exactly(FEATURES["tf_efficientnetv2_m"]),
    "features_appendix": lambda: exactly(FEATURES["efficientnetv2_rw_m"]),
    "image_size": lambda: exactly(APPENDIX["image_size"]),
    "production_size": Recounted,
    "sub_centers": lambda: exactly(APPENDIX["sub_centers"]),
    "learning_rate": Recounted,
}


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


def reason(row: pd.Series, found: Recounted) -> str:
    """What may be behind a difference or an open verdict; empty where they agree."""
    if row["agrees"] is True:
        return ""
    wider = found._replace(low=found.low - found.rounding, high=found.high + found.rounding)
    by_rounding = row["agrees"] is False and agreement(row["printed"], wider) is None
    return "Rounding of the printed cells alone. " * by_rounding + row["reasons"]


def claims() -> pd.DataFrame:
    """Every claim, recomputed: `listed` with recomputed (words), low, high and agrees.

    `agrees` is missing where what is printed doesn't decide it, and `reasons` empty where it is
    True. A claim that can be read in several ways has a row for each.
    """
    table = listed()
    found = [RECOUNT[name]() for name in table["id"]]
    pairs = zip(table["printed"], found, strict=True)
    verdicts = [agreement(printed, number) for printed, number in pairs]
    table = table.assign(agrees=pd.Series(verdicts, dtype=object))
    rows = zip(table.iterrows(), found, strict=True)
    table["reasons"] = [reason(row, number) for (_, row), number in rows]
    table["agrees"] = table["agrees"].astype("boolean")
    table.insert(4, "recomputed", [in_figures(number) for number in found])
    limits = pd.DataFrame([number[1:3] for number in found], columns=["low", "high"])
    return pd.concat([table, limits], axis=1)


def worded(table: pd.DataFrame) -> pd.DataFrame:
    """`claims` for a reader: its columns in words, `agrees` as yes, no or open."""
    verdicts = table["agrees"].map({True: "yes", False: "no"}).astype(object).fillna("open")
    names = ["claim", "where", "printed", "recomputed", "recomputed_from", "agrees", "reasons"]
    shown = table.assign(agrees=verdicts)[names]
    return shown.rename(columns={"recomputed_from": "from", "reasons": "possible reasons"})


def by_claim(table: pd.DataFrame) -> pd.Series:
    """The verdict on each claim: True if one of its readings agrees, False if none can."""

    def verdict(readings: pd.Series) -> bool | None:
        return True if readings.any() else None if readings.isna().any() else False

    groups = table.groupby("claim", sort=False)["agrees"]
    return pd.Series({claim: verdict(own) for claim, own in groups}, dtype="boolean")


def in_words(table: pd.DataFrame) -> str:
    """How many claims agree, as a sentence."""
    verdicts = by_claim(table)
    known = verdicts.notna().sum()
    return (
        f"{verdicts.sum()} of {known} checkable claims agree at the printed precision; "
        f"{len(verdicts) - known} more can't be decided from what is printed."
    )
