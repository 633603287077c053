"""The cards agree with Table 1, with the code, and with themselves."""

import re
from pathlib import Path

import pandas as pd
import pytest

import miewid_core
from miewid_core.config import PRESETS
from miewid_core.model import RESIZINGS, MiewIDNet
from miewid_core.paper.printed import FOLDER, printed_table
from miewid_core.readers.weights import RELEASED

CARDS = Path(miewid_core.__file__).parent / "paper" / "cards"
MODEL, DATASET = ((CARDS / f"{name}_card.md").read_text() for name in ("model", "dataset"))


@pytest.fixture(scope="module")
def datasets():
    return pd.read_csv(CARDS / "datasets.csv", keep_default_na=False)


def table(text, first):
    """Rows of the table in `text` whose head starts with the cell `first`, as lists of cells."""
    lines = text[text.index(f"\n{first} | ") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_rows_are_table_1s_rows_in_its_order(datasets):
    printed = printed_table(1)
    assert len(datasets) == 61
    assert datasets["dataset"].tolist() == printed["dataset"].tolist()
    assert datasets["source"].tolist() == printed["source"].tolist()


def test_nothing_is_left_open_and_nothing_claimed_without_a_source(datasets):
    assert set(datasets["public"]) == {"yes", "not stated", "not known"}
    for column in ("how", "licence", "stated_by"):
        assert datasets[column].str.len().gt(0).all(), column
    public = datasets["public"] == "yes"
    assert datasets.loc[public, "url"].str.fullmatch(r"https://\S+").all()
    assert datasets.loc[public, "wildlife_datasets"].str.fullmatch(r"\w+").all()
    assert (datasets.loc[~public, "licence"] == "not known").all()
    assert (datasets.loc[~public, "wildlife_datasets"] == "").all()


def test_rows_of_one_source_say_the_same(datasets):
    said = ["public", "how", "wildlife_datasets", "url", "licence", "stated_by"]
    named = datasets[datasets["source"] != "contributed"]
    assert named.groupby("source")[said].nunique().max(axis=None) == 1
    contributed = datasets[datasets["source"] == "contributed"]
    assert contributed.loc[contributed["public"] == "yes", "dataset"].tolist() == ["nyala"]


def test_columns_and_numbers_of_the_dataset_card(datasets):
    described = {
        name for row in table(DATASET, "| column") for name in re.findall(r"`(\w+)`", row[0])
    }
    assert described == set(datasets.columns) - {"note"}
    public = (datasets["public"] == "yes") & (datasets["source"] != "contributed")
    whales, contributed = (
        datasets["source"].eq(name).sum() for name in ("Happywhale", "contributed")
    )
    assert f"{public.sum()} rows come from public sets, {whales} of them" in DATASET
    assert f"Of the {contributed} contributed rows" in DATASET


def test_similar_sets_have_a_licence_each(datasets):
    named = {name for text in datasets["similar_public"] for name in text.split()}
    assert named == {row[0] for row in table(DATASET, "| class")}
    assert all(
        row[1] and re.fullmatch(r"(https|ftp)://\S+", row[2]) for row in table(DATASET, "| class")
    )


def test_the_model_card_describes_the_presets():
    rows = {row[0].strip("`").removeprefix("preset `"): row for row in table(MODEL, "|")}
    for name, config in PRESETS.items():
        backbone, size, length = rows[name][1:4]
        assert backbone == f"`{config.backbone}`"
        assert size == f"{config.image_size} px"
        features = MiewIDNet(config.backbone).n_features
        assert length == f"{features:,}"
    released = rows["conservationxlabs/miewid-msv3"]
    assert RELEASED["backbone"] in released[1]
    assert released[2] == f"{RELEASED['size']} px"
    network = MiewIDNet(RELEASED["backbone"])
    millions = sum(weight.numel() for weight in network.parameters()) / 1e6
    assert f"{millions:.1f} million parameters" in released[1]


def test_the_model_card_names_both_preprocessings():
    assert all(f'"{name}", with' in MODEL for name in RESIZINGS)


def test_the_model_card_has_the_table_of_a1_against_the_code():
    expected = pd.read_csv(FOLDER / "a1_against_code.csv")
    assert table(MODEL, "| what | paper") == expected.to_numpy().tolist()


@pytest.mark.parametrize("text", [MODEL, DATASET])
def test_what_the_cards_name_exists(text):
    root = CARDS.parents[2]
    for number in re.findall(r"(?<=`)\d\d(?=`)", text):
        assert list((root / "notebooks").glob(f"{number}_*.ipynb")), number
    for path in re.findall(r"`((?:miewid_core|figures)/[\w./]+)`", text):
        assert (root / path).exists(), path
    for name in re.findall(r"`(\w+_card\.md)`", text):
        assert (CARDS / name).exists()
