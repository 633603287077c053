"""Notebook 00's query and pictures: what is chosen, where the box lies, whose numbers are drawn."""

import numpy as np
import pandas as pd
import pytest

from miewid_core.chips import ChipStore
from miewid_core.paper import walkthrough


def test_the_query_comes_first_and_has_true_matches(photos):
    for seed in range(5):
        few = walkthrough.query_and_others(photos, "bee", seed)
        assert set(few["species"]) == {"bee"}
        assert len(few) == 11  # of 12
        same = few["individual"].iloc[1:] == few["individual"].iloc[0]
        assert same.sum() == 2  # though it has three other photos
        pd.testing.assert_frame_equal(few, photos.loc[few.index])
    assert walkthrough.query_and_others(photos)["species"].iloc[0] == "ant"


def test_a_species_without_a_pair_is_refused_by_name(photos):
    with pytest.raises(ValueError, match="no wasp is seen twice; there are ant, bee"):
        walkthrough.query_and_others(photos, "wasp")


def test_the_box_is_drawn_where_the_chip_is_cut(photos, tmp_path):
    row = photos.iloc[0].copy()
    row[["x", "y", "w", "h", "theta"]] = 5, 6, 20, 10, np.pi / 2
    store = ChipStore(tmp_path, 16)
    chip = store.read(store.build(row.to_frame().T).iloc[0])
    left, right = walkthrough.photo_to_chip(row, chip).axes
    corners = left.patches[0].get_corners()
    assert np.round(corners.min(axis=0)).tolist() == [10, 1]  # turned about (15, 11)
    assert np.round(corners.max(axis=0)).tolist() == [20, 21]
    np.testing.assert_array_equal(right.images[0].get_array(), chip)


def test_each_number_of_an_embedding_is_a_point():
    embeddings = np.array([[0.6, 0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, -1.0]])
    chips = [np.zeros((8, 8, 3), np.uint8)] * 2
    drawn = walkthrough.number_by_number(chips, embeddings, ["one", "another"])
    for axes, other in zip(drawn.axes[1::2], embeddings[1:], strict=True):
        points = axes.lines[-1].get_xydata()
        np.testing.assert_array_equal(points, np.stack([embeddings[0], other], axis=1))
    assert drawn.alt.startswith("one: similarity 0.96; a number of the query")
    assert "another: similarity 0.00" in drawn.alt
