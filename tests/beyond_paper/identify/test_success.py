"""How well it works, in tables and in plain words."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from miewid_core.beyond_paper.identify import candidates, success
from miewid_core.beyond_paper.identify.embeddings import Embeddings
from miewid_core.files import ROOT
from miewid_core.paper.comparison import compare
from tests.beyond_paper.identify.made import embedded


class TestInWords:
    def table(self, individuals, queries=40):
        return success.table(embedded([f"{i % individuals}" for i in range(queries)], 0))

    def test_few_individuals_get_no_interval_but_a_warning(self):
        words = success.in_words(self.table(2))
        assert "95 % interval" not in words
        assert "2 successes with 2 leave room for 78 % of failures" in words  # 1 - 0.05 ** (1 / 2)

    def test_many_need_no_words(self):
        assert success.in_words(self.table(12)) == "Each species has 10 tested individuals or more."

    def test_singletons_say_what_is_missing(self):
        words = success.in_words(self.table(9, 9))
        assert "no individual has two encounters" in words
        assert "nan" not in words


def test_success_is_the_share_of_queries_found():
    tested = embedded(list("aabbcc"), 0)
    vectors = np.eye(6, dtype=np.float32)[[0, 0, 1, 2, 3, 3]]  # b is the one that isn't found
    tested = Embeddings(tested.rows, vectors, "w", "p")
    table = success.table(tested)
    assert table["top1"][0] == pytest.approx(100 * 4 / 6)
    assert table["top5"][0] == 100  # of three individuals
    assert table["chance1"][0] == pytest.approx(100 / 3)
    assert table["chance5"][0] == pytest.approx(100)
    assert "top1_seen" not in table  # nobody knows what the network learned
    learned = set(tested.rows["individual"][[0, 2]])  # of a and b
    apart = success.table(tested, learned)
    assert apart[["top1_seen", "top1_new"]].iloc[0].tolist() == pytest.approx([50, 100])
    assert "top5_seen" not in apart


def test_individuals_are_counted_and_not_their_photos():
    tested = embedded(list("aabbb"), 0)
    vectors = np.array([[1, 0], [0.8, 0.6], [1, 0.1], [1, 0.2], [1, 0.3]], np.float32)
    table = success.table(Embeddings(tested.rows, vectors, "w", "p"))
    assert table["top1"][0] == pytest.approx(100 * 3 / 5)
    assert table["top5"][0] == 100  # three photos of b are one individual
    assert compare({"photos": tested.ranks()}, k=2)["photos"][0] < 100


def test_a_headline_names_the_network_and_the_page(tmp_path):
    table = success.table(embedded(list("aabbccdd"), 0), {"a", "b"})
    words = success.headline(table, ROOT / "figures" / "demo" / "review.html")
    said = "Among the tested individuals the multi-species network puts the right one first in "
    assert words.startswith(said)
    mean = table.iloc[-1]
    assert f"first in {mean['top1']:.0f} % ({mean['top1_low']:.0f} to " in words
    told = success.details(table, 9)
    assert "4 individuals were tested; the page searches all photos of 9" in told
    assert words.endswith("Decide on the page `figures/demo/review.html`.")
    page = tmp_path / "review.html"
    assert str(page) in success.headline(table, page, "some.safetensors")
    assert "the network of your weights" in success.headline(table, page, "some.safetensors")
    assert success.UNKNOWN in success.headline(table, page, "some.safetensors")
    (tmp_path / "rows.csv").touch()  # of the run
    assert success.UNKNOWN not in success.headline(table, page, str(tmp_path / "w.safetensors"))
    final = success.headline(table, page, "some.safetensors", success.FINAL)
    assert "the measured network of your weights" in final
    assert final.endswith("the final network, which was trained on all known photos.")
    assert success.headline(table.assign(top1=np.nan), page).startswith("No individual")


def test_a_known_animal_is_missed_where_too_few_candidates_are_inspected():
    tested = embedded([f"{i % 9}" for i in range(36)], 0)
    table = success.missed(success.table(tested))
    means = table.set_index("inspected")["missed"]
    for count in (1, 2, 5, 10):
        hits = 0
        for query, own in zip(tested.rows["annotation_id"], tested.rows["individual"], strict=True):
            vectors = tested.of(tested.rows["annotation_id"] != query)
            of_query = tested.of(tested.rows["annotation_id"] == query)
            found = candidates.rank(vectors, of_query, count)
            hits += own in set(found["individual"])
        assert means[count] == pytest.approx(100 * (1 - hits / 36))
    alone = success.missed(success.table(tested.of(np.arange(36) < 1)))
    assert alone["missed"].isna().all()


def test_photos_needed_are_those_of_a_database_with_so_many_of_each():
    tested = embedded([f"{i % 6}" for i in range(24)], 0)
    table = success.needed(tested, 0)
    photos = table[table["varied"] == success.PHOTOS].set_index("number")["top1"]
    assert photos.index.tolist() == [1, 2, 3, 4]
    all_ = compare({"top1": tested.ranks()})["top1"].iloc[-1]
    assert photos[4] == pytest.approx(all_)
    individuals = table[table["varied"] == success.INDIVIDUALS].set_index("number")["top1"]
    assert individuals[6] == pytest.approx(all_)
    assert individuals[2] > individuals[6]  # of random embeddings
    assert success.needed(embedded(list("abc"), 0), 0).empty
    rows = tested.rows[::-1].reset_index(drop=True)
    turned = dataclasses.replace(tested, rows=rows, vectors=tested.vectors[::-1])
    pd.testing.assert_frame_equal(success.needed(turned, 0), table)
