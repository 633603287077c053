"""The audit of the paper's numbers: recomputed here with plain loops, and never typed by hand."""

import csv
import itertools
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from scipy.stats import spearmanr

from miewid_core.paper.audit import claims as audit
from miewid_core.paper.audit import recount, tables
from miewid_core.paper.audit.recount import Recounted, exactly
from miewid_core.paper.printed import FOLDER, PRINTED, combined_table1, printed_table, species_name

TEXT = [  # numbers that the paper's text prints, copied from it once more
    *("49", "59", "37K", "225K", "37,138", "225,374", "6.25", "3", "5", "11", "9", "6", "12.5 %"),
    *("-0.2 %", "77.3 %", "1", "33", "19.2 %", "4.5 %", "2,048", "2,152", "256", "440", "384"),
    *("2000+", "60+", "50 %", "10", "1.5e-3"),
]


def rows(number):
    with (FOLDER / f"table{number}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def by_species(number):
    return {species_name(row["species"]): row for row in rows(number)}


@pytest.fixture(scope="module")
def claims():
    return audit.claims().set_index("id")


def change(monkeypatch, claim, printed):
    table = audit.listed()
    table.loc[table["id"] == claim, "printed"] = printed
    monkeypatch.setattr(audit, "listed", lambda: table)


@pytest.mark.parametrize(
    ("printed", "number", "agrees"),
    [
        ("12.5 %", 12.46, True),
        ("12.5 %", 12.45, True),
        ("12.5 %", 12.55, True),
        ("12.5 %", 12.44, False),
        ("-0.2 %", -0.3, False),
        ("-0.2 %", -0.16, True),
        ("6.25", 6.2549, True),
        ("6.25", 6.26, False),
        ("37K", 37_138, True),
        ("37K", 37_501, False),
        ("37,138", 37_138, True),
        ("37,138", 37_139, False),
        ("1.5e-3", 0.00154, True),
        ("1.5e-3", 0.00156, False),
        ("60+", 60, True),
        ("60+", 59, False),
        ("2,048", 2152, False),
        ("all 24", 24, True),
        ("all 24", 22, False),
        ("above 0", 0.1, True),
        ("below 0", 0.1, False),
        ("none (0)", 0, True),
    ],
)
def test_agreement_is_decided_at_the_printed_precision(printed, number, agrees):
    assert audit.agreement(printed, exactly(number)) is agrees


@pytest.mark.parametrize(
    ("low", "high", "agrees"),
    [
        (6.246, 6.254, True),
        (6.11, np.inf, None),
        (6.3, np.inf, False),
        (0, 6.2, False),
        (6.2, 6.25, None),
        (-np.inf, np.inf, None),
    ],
)
def test_a_range_decides_only_where_all_of_it_says_the_same(low, high, agrees):
    assert audit.agreement("6.25", Recounted(low, low, high)) is agrees


def test_a_claim_without_a_number_is_an_error():
    with pytest.raises(ValueError, match="there is no number in 'many'"):
        audit.printed_range("many")


def test_every_claim_is_recounted_in_one_way_and_the_list_holds_no_verdict():
    listed = audit.listed()
    assert listed["id"].is_unique
    ways = [listed["rows_where"] != "", listed["recomputed_from"] == "not recomputable"]
    ways.append(listed["id"].isin(audit.RECOUNT))
    assert (sum(way.astype(int) for way in ways) == 1).all()
    assert set(audit.RECOUNT) <= set(listed["id"])
    cells = listed.stack().str.strip().str.lower()
    assert not {"yes", "no", "true", "false", "open", "agrees"} & set(cells)


def test_the_printed_numbers_are_the_paper_s():
    assert set(TEXT) <= set(audit.listed()["printed"])
    assert audit.stated("species_total") == PRINTED["n_species"]
    for name in ("annotations", "individuals"):
        assert audit.stated(f"{name}_total") == PRINTED[name]
    assert audit.stated("per_individual_text") == PRINTED["mean_per_individual"]
    assert audit.stated("median_per_individual") == PRINTED["median_per_individual"]


def test_a_changed_print_flips_the_verdict(claims, monkeypatch):
    assert not claims.loc["gain_mean", "agrees"]
    assert claims.loc["gain_mean", "reasons"]
    change(monkeypatch, "gain_mean", "18.8 %")
    changed = audit.claims().set_index("id").loc["gain_mean"]
    assert changed["agrees"]
    assert changed["reasons"] == ""


def test_a_changed_table_flips_the_verdict(claims, monkeypatch):
    assert claims.loc["mega_better", "agrees"]
    whole = printed_table

    def worse(number):
        table = whole(number)
        return table.replace({"miewid_leave_one_out": {86.8: 86.2}}) if number == 3 else table

    monkeypatch.setattr(recount, "printed_table", worse)
    changed = audit.claims().set_index("id")
    assert not changed.loc["mega_better", "agrees"]
    assert changed.loc["mega_better", "recomputed"] == "32"


def test_sums_of_table_1(claims):
    known = sum(int(row["annotations"]) for row in rows(1) if row["annotations"])
    assert known == 273_437
    assert claims.loc["annotations_total", "recomputed"] == "at least 273,437"
    assert claims.loc["per_individual_table", "low"] == known / 44_764
    assert claims.loc["individuals_total", "high"] == sum(int(r["individuals"]) for r in rows(1))
    assert claims.loc["per_individual_text", "low"] == 225_374 / 37_138
    assert claims.loc["datasets_total", "recomputed"] == str(len(rows(1))) == "61"


def test_small_and_large_species(claims):
    own = {}
    for row in rows(1):
        name = species_name(row["dataset"])
        own[name] = own.get(name, 0) + int(row["annotations"] or 0)
    small = [sum(n < bound for n in own.values()) for bound in (1000, 500, 250)]
    assert small == [12, 10, 6]
    table = tables.groupings().set_index("otherwise")
    assert table.loc["none: ours"].tolist() == [49, 8, *small]
    assert table.loc["stated in the text"].tolist() == [49, 5, 11, 9, 6]
    assert table.loc["horse"].tolist() == [48, 8, 11, 9, 6]
    for bound, n in zip((1000, 500, 250), small, strict=True):
        assert claims.loc[f"below_{bound}_species", "recomputed"].startswith(f"{n} (")
    assert pd.isna(claims.loc["below_1000_species", "agrees"])
    assert not claims.loc["above_10000_species", "agrees"]


def test_only_one_species_is_too_small_for_an_individual_with_3_annotations(claims):
    small = [
        row["dataset"]
        for row in rows(1)
        if row["annotations"] and int(row["annotations"]) < int(row["individuals"]) + 2
    ]
    assert small == ["frasiers_dolphin"]
    assert claims.loc["untrainable", ["low", "high"]].tolist() == [1, 1]


def test_gains_of_table_2(claims):
    tenths = [
        round(10 * float(row["multi_species"])) - round(10 * float(row["single_species"]))
        for row in rows(2)
    ]
    assert claims.loc["gain_mean", "low"] == pytest.approx(sum(tenths) / len(tenths) / 10)
    assert [min(tenths), max(tenths)] == [-3, 773]
    assert claims.loc["gain_least", "recomputed"] == "-0.3"
    assert claims.loc["gain_least", "reasons"].startswith("Rounding of the printed cells alone.")
    assert claims.loc["gain_most", "agrees"]
    assert claims.loc["gain_negative", "recomputed"] == str(sum(t < 0 for t in tenths)) == "1"
    low, high = ((sum(tenths) + 4 * bound) / 490 for bound in (-3, 773))
    assert claims.loc["gain_mean_49", ["low", "high"]].tolist() == pytest.approx([low, high])


def test_table_3_against_table_2(claims):
    two, three = by_species(2), by_species(3)
    other = [
        name
        for name, row in three.items()
        if row["miewid_leave_one_out"] != two[name]["leave_one_out"]
    ]
    assert other == ["brydes_whale", "cuviers_beaked_whale", "pygmy_killer_whale", "sei_whale"]
    assert all(three[n]["miewid_leave_one_out"] == two[n]["multi_species"] for n in other)
    assert tables.other_unseen()["species"].tolist() == other
    assert claims.loc["mega_same", "recomputed"] == str(33 - len(other))
    for claim, ours in (
        ("mega_gain", {n: row["miewid_leave_one_out"] for n, row in three.items()}),
        ("mega_gain_unseen", {n: two[n]["leave_one_out"] for n in three}),
    ):
        gains = [float(ours[n]) - float(row["megadescriptor_l_384"]) for n, row in three.items()]
        assert claims.loc[claim, "low"] == pytest.approx(sum(gains) / 33)
        assert min(gains) > 0


def test_an_accuracy_of_exactly_0_is_flagged():
    cells = {
        (species_name(row["species"]), name): float(row[name])
        for row in rows(2)
        for name in ("multi_species", "single_species", "leave_one_out")
    }
    assert [key for key, value in cells.items() if value == 0] == [("giraffe", "leave_one_out")]
    (found,) = tables.zero_cells().to_dict("records")
    assert (found["species"], found["column"]) == ("giraffe", "leave_one_out")
    assert found["others"] == "100.0 and 93.6"
    left_out = [value for (_, name), value in cells.items() if name == "leave_one_out"]
    assert found["mean"] == pytest.approx(sum(left_out) / 45)
    assert found["mean_without"] == pytest.approx(sum(left_out) / 44)
    assert found["queries"] == next(
        n for n in range(1, 1000) if all(is_share(p, n) for p in ("100.0", "93.6"))
    )


def test_one_row_counts_animals_and_two_count_their_sides():
    found = tables.sides().set_index("species")["per_animal"]
    assert found["nyala"] == 1
    assert found[["hyena", "leopard"]].between(1.9, 2).all()


def test_table_2_is_alphabetical_not_by_size(claims):
    names = [row["species"] for row in rows(2)]
    assert names == sorted(names)
    own = combined_table1().set_index("species")["annotations"].to_dict()
    sizes = [own[species_name(name)] for name in names]
    sizes = [9252 if pd.isna(size) else size for size in sizes]
    falling = sum(a >= b for a, b in itertools.pairwise(sizes))
    assert claims.loc["order", "recomputed"] == str(falling) == "20"


def test_tables_4_and_5(claims):
    two, four, five = by_species(2), rows(4), rows(5)
    kept = [
        row["joint_training"] == two[species_name(row["species"])]["leave_one_out"]
        for row in four
        if row["individuals"] == "0"
    ]
    assert claims.loc["joint_zero", "recomputed"] == str(sum(kept)) == "1"
    pairs = [(a, b) for a, b in zip(four, five, strict=True) if a["individuals"] != "0"]
    above = sum(float(a["joint_training"]) > float(b["fine_tuning"]) for a, b in pairs)
    assert claims.loc["joint_tuned", "recomputed"] == str(above) == "22"
    above = sum(float(a["joint_training"]) > float(a["species_only"]) for a, _ in pairs)
    assert claims.loc["joint_single", "recomputed"] == str(above) == "24"
    least = min(int(a["annotations"]) / int(a["individuals"]) for a, _ in pairs)
    assert claims.loc["rule_of_three", "low"] == pytest.approx(least)
    found = tables.exceptions()
    assert found["species"].value_counts().to_dict() == {
        **{"beluga_whale": 2, "loggerhead_turtle": 2, "grey_whale": 1, "lion": 1},
    }


def is_share(printed, n):
    """Does a whole number of n queries round to the printed percentage?"""
    value, half = Fraction(printed), Fraction(1, 20)
    return any(abs(Fraction(100 * k, n) - value) <= half for k in range(n + 1))


def test_whole_numbers_of_queries(claims):
    two = by_species(2)
    for name, most in (("brydes_whale", 154), ("pygmy_killer_whale", 76)):
        cells = [two[name][c] for c in ("multi_species", "single_species", "leave_one_out")]
        fitting = [n for n in range(1, most + 1) if all(is_share(c, n) for c in cells)]
        assert fitting == []
        assert np.isnan(recount.fewest_queries(np.array(cells, dtype=float), most))
    found = tables.no_whole_queries().set_index("species")
    assert found["queries_two"].to_dict() == {"brydes_whale": 21, "pygmy_killer_whale": 13}
    assert claims.loc["whole_queries", "recomputed"] == "43"


@pytest.mark.parametrize("seed", range(3))
def test_fewest_queries_against_fractions(seed):
    printed = np.random.default_rng(seed).integers(0, 1001, 2) / 10
    slow = next(n for n in range(1, 1001) if all(is_share(f"{p:.1f}", n) for p in printed))
    assert recount.fewest_queries(printed, np.inf) == slow


def test_rank_correlation_is_spearman_s():
    values = recount.accuracy()["gain"]
    individuals = combined_table1().set_index("species")["individuals"]
    expected = spearmanr(values, individuals.loc[values.index].astype(float)).statistic
    assert recount.trend("gain", "individuals").value == pytest.approx(expected)


def test_lengths_of_embeddings_are_timm_s():
    with torch.device("meta"):
        for name, length in audit.FEATURES.items():
            assert timm.create_model(name).num_features == length


def test_a_claim_agrees_if_one_of_its_readings_does():
    readings = [("a", True), ("a", False), ("b", False), ("b", None), ("c", False), ("d", True)]
    table = pd.DataFrame(readings, columns=["claim", "agrees"]).astype({"agrees": "boolean"})
    verdicts = audit.by_claim(table)
    assert verdicts[["a", "c", "d"]].tolist() == [True, False, True]
    assert verdicts.isna().tolist() == [False, True, False, False]
    for weight, light in (("detail", 0), ("rounding or our reading", 1)):
        told = f"1 don't ({light} by rounding or our reading); "
        words = audit.answer(table.assign(weight=weight))
        assert f"Of 3 checkable claims 2 agree at the printed precision and {told}" in words


def test_words_for_a_reader(claims):
    shown = audit.worded(claims.reset_index()).set_axis(claims.index)
    assert set(shown["agrees"]) == {"yes", "no", "open"}
    assert shown.loc["swin", ["recomputed", "agrees"]].tolist() == ["not printed", "open"]
    assert (shown.loc[shown["agrees"] != "yes", "possible reasons"] != "").all()
    assert shown.loc["individuals_total", "recomputed"] == "44,764 (37,323 to 44,764)"


def test_answer_and_table_name_what_disagrees(claims):
    table = claims.reset_index()
    assert audit.answer(table).startswith(
        "The conclusions' directions hold in the printed tables, but the mean gain is 12.5 points "
        "in the text and 18.8 by Table 2. Of "
    )
    lost = audit.lost(table)
    assert lost["claim"].nunique() == audit.by_claim(table).eq(False).sum()
    assert lost["weight"].unique().tolist() == audit.WEIGHTS
    headlines = lost.loc[lost["weight"] == "headline", "id"]
    assert {"gain_mean", "gain_mean_49", "mega_gain", "mega_same"} < set(headlines)
    words = audit.directions()
    assert "better for 44 of 45 species" in words
    assert "MegaDescriptor for 33 of 33" in words
    assert "in 24 of 24 rows" in words


def test_figure_and_tables_of_the_notebook():
    gains = tables.gains()
    assert gains.groupby("table")["place"].max().to_dict() == {2: 45, 3: 33}
    drawn = tables.gains_figure(gains, "Gains")
    titles = [axes.get_title() for axes in drawn.axes]
    assert titles == [
        "Table 2, over single-species: mean 18.8, text 12.5",
        "Table 3, over MegaDescriptor: mean 22.9, text 19.2",
    ]
    assert tables.lacking()["annotations"].sum() == 90 + 14 + 293 + 60
    ends = tables.ends().set_index("species")
    assert ends.loc["grey_whale"].tolist() == [44.4, 40.4, 40.4, 79.3, 67.1, 86.5, 75.3]
    assert tables.averages()["text"].tolist() == [12.5, 19.2, 19.2]
    assert tables.totals()["text"].tolist() == [225_374, 37_138]
