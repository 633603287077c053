"""The paper's claims on a folder of figures: each row from the table that it names."""

import numpy as np
import pandas as pd
import pytest

from miewid_core.paper.claims import claims

SPECIES = ["a", "b", "c", "d", "e", "mean"]
SIZES = [500, 400, 300, 200, 100]


def compared(folder, name, **gains):
    """A table as notebooks save it: of each gain its values, its half width, its p."""
    table = pd.DataFrame({"species": SPECIES, "train_annotations": [*SIZES, sum(SIZES)]})
    for other, (values, half, p) in gains.items():
        gain = f"gain_over_{other}"
        table[gain] = [*values, np.mean(values)]
        table[f"{gain}_low"], table[f"{gain}_high"] = table[gain] - half, table[gain] + half
        table[f"{gain}_p"] = [*p, np.nan]
    table.to_csv(folder / f"{name}.csv", index=False)


def by_claim(folder):
    return claims(folder).set_index("claim")


def test_nothing_is_claimed_where_no_notebook_ran(tmp_path):
    assert claims(tmp_path).empty


@pytest.mark.parametrize(
    ("shift", "verdict"), [(20, "holds"), (-20, "the reverse is shown"), (0, "not shown")]
)
def test_a_claim_holds_where_its_interval_lies_above_zero(tmp_path, shift, verdict):
    matched = np.array([-2.0, -1, 0, 1, 2]) + shift
    some = [0.01, 0.2, 0.01, 0.2, 0.01]
    compared(tmp_path, "table2_multi_single", matched=(matched, 3, some), single=(matched, 3, some))
    row = by_claim(tmp_path).loc["one network for all beats one per species (equal steps)"]
    assert (row["here"], row["low"], row["high"]) == pytest.approx((shift, shift - 3, shift + 3))
    assert row["verdict"] == verdict
    ahead = sum(gain > 0 for gain, p in zip(matched, some, strict=True) if p < 0.05)
    behind = sum(gain < 0 for gain, p in zip(matched, some, strict=True) if p < 0.05)
    assert (row["ahead"], row["behind"]) == (ahead, behind)
    # 12.5 in the paper's text, 18.8 by its Table 2
    epochs = by_claim(tmp_path).loc["one network for all beats one per species (equal epochs)"]
    assert epochs["paper"] == pytest.approx(18.8, abs=0.05)


@pytest.mark.parametrize(("sign", "verdict"), [(1, "holds"), (-1, "the reverse is shown")])
def test_small_species_gain_most_where_gains_fall_with_size(tmp_path, sign, verdict):
    gains = [sign * gain for gain in (-30, -10, 0, 10, 30)]
    compared(
        tmp_path, "table2_multi_single", matched=(gains, 3, [1] * 5), single=(gains, 3, [1] * 5)
    )
    row = by_claim(tmp_path).loc[
        "the gain falls with size (rank correlation, sign turned; equal steps, the paper's epochs)"
    ]
    assert row["here"] == pytest.approx(sign)
    assert row["verdict"] == verdict
    assert 0 < row["paper"] < 1  # theirs do


def test_few_individuals_and_the_database_are_read_off_their_tables(tmp_path):
    few = {"species": "zebra", "individuals": [25, 40], "difference": [8.0, -9.0]}
    few |= {"low": [2.0, -12.0], "high": [14.0, -6.0]}
    for name in ("table4_gain", "table5_gain"):
        pd.DataFrame(few).to_csv(tmp_path / f"{name}.csv", index=False)
    cost = {"limit": [1, 2], "cost_1": [9.0, 3.0], "cost_1_low": [5.0, -1.0]}
    pd.DataFrame(cost | {"cost_1_high": [13.0, 7.0]}).to_csv(tmp_path / "figure3_cost.csv")
    table = claims(tmp_path)
    assert table["here"].tolist() == [8, -9, 8, -9, 9]
    assert table["section"].tolist() == ["5.4", "5.4", "5.5", "5.5", "5.4"]
    reverse = "the reverse is shown"
    assert table["verdict"].tolist() == ["holds", reverse, "holds", reverse, "holds"]
    # of six species with 25 individuals: 60.05 jointly, 35.85 alone (Table 4)
    assert table["paper"][0] == pytest.approx(60.05 - 35.85)
    assert table["paper"][[1, 3, 4]].isna().all()
