"""Table 1 and the long tail of a catalog, against numbers counted by hand."""

import pandas as pd
import pytest

from miewid_core.paper import table1
from miewid_core.readers.load import load_catalog

ROWS = [  # species, individual, encounter
    *[("ant", "ant/a", "1"), ("ant", "ant/a", "1"), ("ant", "ant/a", "2"), ("ant", "ant/b", "1")],
    *[("bee", "bee/a", ""), ("bee", "bee/a", ""), ("bee", "bee/b", ""), ("bee", "bee/c", "1")],
    *[("bee", "bee/d", "")],
]


@pytest.fixture
def photos():
    return pd.DataFrame(ROWS, columns=["species", "individual", "encounter"])


def test_summary_by_hand(photos):
    table = table1.summary(photos)
    assert table.to_dict("list") == {
        "species": ["bee", "ant", "total"],  # the larger first
        "annotations": [5, 4, 9],
        "individuals": [4, 2, 6],
        "encounters": [5, 2, 7],  # encounter 1 of ants and of bees are two; "" is one of its own
        "mean_per_individual": [1.25, 2, 1.5],
        "median_per_individual": [1, 2, 1],
        "share_with_one": [0.75, 0.5, 4 / 6],
    }


def test_long_tail_by_hand(photos):
    assert table1.tail_rows(photos).to_numpy().tolist() == [
        *[["ant", 1, 1, 1], ["ant", 3, 1, 3], ["bee", 1, 3, 3], ["bee", 2, 1, 2]],
    ]


def test_nothing_is_lost_whatever_the_order(photos):
    shuffled = photos.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(table1.summary(shuffled), table1.summary(photos))
    tail = table1.tail_rows(shuffled)
    assert tail["annotations"].sum() == len(photos)
    assert tail["individuals"].sum() == photos["individual"].nunique()


def test_on_a_loaded_catalog(small_catalog):
    table = table1.summary(load_catalog(small_catalog)).set_index("species")
    assert table["annotations"].to_dict() == {"ant": 12, "bee": 12, "total": 24}
    assert table.loc["total", "individuals"] == 6
    assert table.loc["total", "share_with_one"] == 0


def test_relatives_share_a_family():
    families = {"lion": "cats", "tiger": "cats", "orca": "whales", "ant": "", "bee": ""}
    blank = [""] * len(families)  # what one row leaves out, another one says
    photos = pd.DataFrame({"species": [*families] * 2, "family": [*blank, *families.values()]})
    table = table1.relatives(photos).set_index("species")
    assert table["relatives"].to_dict() == {
        **{"lion": "tiger", "tiger": "lion", "orca": "", "ant": "", "bee": ""}
    }
    assert table.loc["lion", "family"] == "cats"


def test_words_give_size_and_tail(photos):
    words = table1.in_words(table1.summary(photos), table1.tail_rows(photos))
    assert words == (
        "An individual has 1 annotations in the median and 1.50 on average (the paper: 3 and "
        "6.25). The tenth of the individuals with most has 33 % of the annotations."
    )
