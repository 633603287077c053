"""Embeddings are kept, refused where they don't fit, and searched exactly."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from miewid_core import chips, model
from miewid_core.beyond_paper.identify import embeddings
from miewid_core.beyond_paper.identify.embeddings import LABELS, Embeddings, search
from miewid_core.photos import crop, read_photo


def some(count=6, width=4, seed=0):
    generator = np.random.default_rng(seed)
    rows = pd.DataFrame({name: [f"{name}{i}" for i in range(count)] for name in LABELS})
    vectors = generator.normal(size=(count, width)).astype(np.float32)
    return Embeddings(rows, vectors, "w" * 64, "p" * 64)


def test_what_is_not_finite_is_no_embedding():
    rows, vectors = some().rows, some().vectors
    vectors[3, 0] = np.nan
    with pytest.raises(ValueError, match="not finite for annotation_id3"):
        Embeddings(rows, vectors, "w", "p")


class TestSearch:
    def test_a_full_sort_of_the_cosines_agrees(self):
        database, queries = some(30, 5), some(7, 5, seed=1)
        scores, rows = search(database, queries, 4)
        for query, vector in enumerate(queries.vectors.astype(float)):
            cosines = [
                float(vector @ other / np.linalg.norm(vector) / np.linalg.norm(other))
                for other in database.vectors.astype(float)
            ]
            order = sorted(range(30), key=lambda row: -cosines[row])[:4]
            assert rows[query].tolist() == order
            assert scores[query] == pytest.approx([cosines[row] for row in order], abs=1e-6)

    def test_length_does_not_matter_and_itself_comes_first(self):
        database = some(9)
        longer = dataclasses.replace(database, vectors=database.vectors * 100)
        scores, rows = search(database, longer, 2)
        assert rows[:, 0].tolist() == list(range(9))
        assert scores[:, 0] == pytest.approx(np.ones(9), abs=1e-6)

    def test_k_is_at_most_the_rows(self):
        assert search(some(3), some(2, seed=1), 20)[0].shape == (2, 3)
        nothing = some(3).of([False] * 3)
        assert search(nothing, some(2), 5)[1].shape == (2, 0)
        assert search(some(3), nothing, 2)[1].shape == (0, 2)

    @pytest.mark.parametrize("name", ["weights", "preprocessing"])
    def test_embeddings_of_another_origin_are_refused(self, name):
        with pytest.raises(ValueError, match=f"can't be compared: {name} are"):
            search(some(), dataclasses.replace(some(), **{name: "x"}), 1)


@pytest.fixture
def weights(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = model.MiewIDNet("test_efficientnet")
    path = tmp_path / "weights.safetensors"
    model.save(network, model.Preprocess.of("test_efficientnet", 32), path)
    return path


class TestEmbed:
    def test_is_the_network_on_each_chip_and_kept(self, weights, photos, tmp_path):
        made = embeddings.embed(weights, photos, tmp_path / "chips", tmp_path / "kept")
        network, preprocess = model.load(weights)
        store = chips.ChipStore(tmp_path / "chips", 32)
        chip = torch.from_numpy(store.read(made.rows["chip"][5]))
        with torch.inference_mode():
            alone = network(preprocess.batch(chip[None]))[0]
        assert made.vectors[5] == pytest.approx(alone.numpy(), abs=1e-4)
        assert made.rows["individual"].tolist() == photos["individual"].tolist()
        (kept,) = (tmp_path / "kept").glob("*.safetensors")
        before = kept.stat().st_mtime_ns
        again = embeddings.embed(weights, photos, tmp_path / "chips", tmp_path / "kept")
        assert again.vectors.tobytes() == made.vectors.tobytes()
        assert kept.stat().st_mtime_ns == before
        kept.write_bytes(kept.read_bytes()[:-1])
        again = embeddings.embed(weights, photos, tmp_path / "chips", tmp_path / "kept")
        assert again.vectors.tobytes() == made.vectors.tobytes()

    def test_an_index_of_the_plugins_preprocessing_can_be_searched(self, weights, photos, tmp_path):
        """As the Wildbook plugin makes one: each crop by OpenCV, without antialiasing."""
        places = tmp_path / "chips", tmp_path / "kept"
        made = embeddings.embed(weights, photos, *places, resizing="plugin")
        network, card = model.load(weights)
        plugin = dataclasses.replace(card, resizing="plugin")
        box = tuple(photos[["x", "y", "w", "h"]].iloc[5])
        photo = crop(read_photo(photos["path"].iloc[5]), box, photos["theta"].iloc[5])
        with torch.inference_mode():
            index = network(plugin(photo)[None])[0].numpy()
        length = np.linalg.norm(index)
        assert np.linalg.norm(made.vectors[5] - index) < 1e-3 * length
        assert made.preprocessing == embeddings.preprocessing_digest(plugin)
        ours = embeddings.embed(weights, photos, *places)
        assert np.linalg.norm(ours.vectors[5] - index) > 0.02 * length
        with pytest.raises(ValueError, match="can't be compared: preprocessing are"):
            search(ours, made, 1)

    def test_other_photos_labels_or_preprocessing_are_embedded_anew(
        self, weights, photos, tmp_path
    ):
        places = tmp_path / "chips", tmp_path / "kept"
        made = embeddings.embed(weights, photos, *places)
        embeddings.embed(weights, photos[1:], *places)
        relabelled = embeddings.embed(weights, photos.assign(individual="ant/x"), *places)
        assert set(relabelled.rows["individual"]) == {"ant/x"}
        network, _ = model.load(weights)
        model.save(network, model.Preprocess.of("test_efficientnet", 40), weights)
        larger = embeddings.embed(weights, photos, *places)
        assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 3
        with pytest.raises(ValueError, match="can't be compared: weights are"):
            search(made, larger, 1)
