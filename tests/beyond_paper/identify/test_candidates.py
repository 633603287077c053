"""Candidates against a slow ranking, and their sheets."""

import numpy as np
import pandas as pd
import pytest

from miewid_core.beyond_paper.identify import candidates
from miewid_core.beyond_paper.identify.embeddings import Embeddings
from tests.beyond_paper.identify.made import embedded


class TestCandidates:
    @pytest.mark.parametrize("k", [1, 3, 5, 50])
    def test_a_slow_ranking_of_individuals_agrees(self, k):
        names = list("aaaaaaaabbbcdddddeefghhhi")
        known, queries = embedded(names, 0), embedded(["?"] * 9, 1, "q")
        found = candidates.rank(known, queries, k)
        for query, vector in zip(queries.rows["annotation_id"], queries.vectors, strict=True):
            best = {}
            for row, name in enumerate(names):
                other = known.vectors[row]
                cosine = vector @ other / np.linalg.norm(vector) / np.linalg.norm(other)
                best[name] = max(best.get(name, (-2, None)), (cosine, f"k{row}"))
            wanted = sorted(best.items(), key=lambda item: -item[1][0])[:k]
            own = found[found["query"] == query]
            assert own["individual"].tolist() == [name for name, _ in wanted]
            assert own["match"].tolist() == [match for _, (_, match) in wanted]
            assert own["score"].tolist() == pytest.approx([s for _, (s, _) in wanted], abs=1e-5)
            assert own["rank"].tolist() == list(range(1, len(wanted) + 1))

    def test_only_its_species_unless_that_is_unknown(self):
        parts = [embedded(list("ab"), 0), embedded(list("cd"), 1, "m", "bee")]
        rows = pd.concat([part.rows for part in parts], ignore_index=True)
        known = Embeddings(rows, np.concatenate([part.vectors for part in parts]), "w", "p")
        queries = embedded(list("???"), 2, "q")
        queries.rows["species"] = ["bee", "", "cat"]
        found = candidates.rank(known, queries)
        groups = found.groupby("query")["individual"].agg(set).to_dict()
        assert groups == {"q0": {"c", "d"}, "q1": {"a", "b", "c", "d"}}
        assert found["query"].is_monotonic_increasing

    def test_no_queries_have_no_candidates(self):
        known = embedded(list("ab"), 0)
        assert list(candidates.rank(known, known.of([False, False]))) == candidates.COLUMNS


def test_of_new_animals_no_candidate_can_be_right(photos, tmp_path):
    queries = photos[photos["individual"].isin(["ant/a", "bee/b"])].groupby("individual").head(1)
    known = photos[photos["individual"] != "bee/b"].drop(queries.index[0])
    found = pd.DataFrame(
        {"query": queries["annotation_id"], "match": known["annotation_id"].iloc[0]}
    )
    found = found.assign(individual=known["individual"].iloc[0], score=0.5, rank=1)
    panels = candidates.panels(found, queries, known, tmp_path, 16)
    captions = [row[0][1].split("\n")[1] for row in panels]
    assert captions == ["query a", "new animal"]
