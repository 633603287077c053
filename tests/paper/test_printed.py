"""The paper's tables as data of the package, and one name for each species."""

import tomllib
from pathlib import Path

import pandas as pd
import pytest

from miewid_core.paper import table1
from miewid_core.paper.printed import (
    FOLDER,
    KNOWN,
    PRINTED,
    SPELLINGS,
    combined_table1,
    printed_table,
    species_name,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("spelt", "name"),
    [
        ("fin_whale", "fin_whale"),
        ("finwhale", "fin_whale"),
        ("Fin Whale", "fin_whale"),
        ("whale_fin+fin_dorsal", "fin_whale"),
        ("beluga", "beluga_whale"),
        ("gray_whale", "grey_whale"),
        ("greywhale", "grey_whale"),
        ("white_shark", "white_shark"),
        ("white_shark+fin_dorsal", "white_shark"),
        ("killer-whale", "orca"),
        ("whale_orca+fin_dorsal", "orca"),
        ("turtle_green+head", "green_turtle"),
        ("short_fin_pilot_whale+fin_dorsal", "pilot_whale"),
        ("chimpanzee_ctai", "chimpanzee"),
        ("whale_sperm+fluke", "sperm_whale"),
        ("Bryde's whale", "brydes_whale"),
        ("Grevy's zebra", "zebra_grevys"),
        ("horse_wild+face", "horse_wild"),
        ("horse_wild_tunisian+face", "horse_wild_tunisian"),
        ("Nyala ", "nyala"),
    ],
)
def test_every_spelling_leads_to_one_name(spelt, name):
    assert species_name(spelt) == name


def test_a_species_that_the_paper_lacks_keeps_its_own_name():
    assert species_name("Holstein face") == "holstein_face"
    assert species_name("killer_whale_toy") == "killer_whale_toy"


def test_no_spelling_stands_for_two_species():
    spellings = [name for own, others in SPELLINGS.items() for name in (own, *others)]
    assert len(KNOWN) == len(spellings)


def test_table_1_has_61_image_sets_of_49_species():
    table = printed_table(1)
    assert len(table) == 61
    assert set(table["species"]) == set(SPELLINGS)
    assert len(SPELLINGS) == PRINTED["n_species"] == 49


def test_table_1_sums_over_the_sets_of_a_species():
    combined = combined_table1().set_index("species")
    assert combined.loc["orca"].tolist() == [2455 + 4045 + 5781, 472 + 1208 + 1494]
    assert combined.loc["pilot_whale"].tolist() == [238 + 2137 + 745, 131 + 611 + 458]
    assert combined.loc["nyala"].tolist() == [1942, 237]
    assert combined["annotations"].isna().sum() == 1  # one cell of the print can't be read
    assert pd.isna(combined.loc["humpback_whale", "annotations"])
    assert combined.loc["humpback_whale", "individuals"] == 3924 + 4767


@pytest.mark.parametrize(
    ("number", "rows", "species"), [(2, 45, 45), (3, 33, 33), (4, 30, 6), (5, 30, 6)]
)
def test_species_of_the_other_tables_are_in_table_1(number, rows, species):
    table = printed_table(number)
    assert len(table) == rows
    assert table["species"].nunique() == species
    assert set(table["species"]) <= set(printed_table(1)["species"])


def test_table_2_lacks_four_small_species():
    missing = set(printed_table(1)["species"]) - set(printed_table(2)["species"])
    assert missing == {
        *("commersons_dolphin", "frasiers_dolphin", "horse_wild", "rough_toothed_dolphin"),
    }


def test_cells_are_as_printed():
    two = printed_table(2).set_index("species")
    assert two.loc["sperm_whale"].tolist() == [100.0, 62.0, 97.7]
    four, five = printed_table(4), printed_table(5)
    assert four["species_only"].isna().sum() == 6  # nothing to train on
    assert four["species_only"].equals(five["species_only"])


@pytest.mark.parametrize("number", [0, 6, "1", None])
def test_no_such_table(number):
    with pytest.raises(ValueError, match=f"no Table {number}; it has Tables 1 to 5"):
        printed_table(number)


def test_ours_beside_table_1():
    rows = [("Nyala", "a", "1"), ("Nyala", "a", "2"), ("Nyala", "b", ""), ("ant", "c", "")]
    photos = pd.DataFrame(rows, columns=["species", "individual", "encounter"])
    beside = table1.beside_paper(table1.summary(photos))
    assert beside[["species", "of"]].to_numpy().tolist() == [
        ["Nyala", "here"],
        ["Nyala", "the paper"],
        ["all species", "here"],
        ["all species", "the paper"],
    ]  # the paper has no ants
    numbers = beside.drop(columns=["species", "of"])
    assert numbers.iloc[0].tolist() == [1, 3, 2, 1.5, 1.5]
    assert numbers.iloc[1].tolist()[:4] == [1, 1942, 237, 1942 / 237]
    assert pd.isna(numbers.iloc[1, 4])
    assert numbers.iloc[2].tolist() == [2, 4, 3, 4 / 3, 1]
    assert numbers.iloc[3].tolist() == [49, 225_374, 37_138, 6.25, 3]


def test_the_package_carries_its_data():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    package = ROOT / "miewid_core"
    carried = {
        path for pattern in setuptools["package-data"]["*"] for path in package.rglob(pattern)
    }
    assert {FOLDER / f"table{n}.csv" for n in range(1, 6)} < carried
    assert package / "miewid.mplstyle" in carried
