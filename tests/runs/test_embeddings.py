"""Embeddings come back bit by bit, are refused where they don't fit, and are searched exactly."""

import builtins
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from miewid_core import chips, model
from miewid_core.beyond_paper.identify import search
from miewid_core.runs import embeddings
from miewid_core.runs.embeddings import LABELS, Embeddings, load, save

FORMATS = ["x.parquet", "x.csv"]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"))


def some(count=6, width=4, seed=0):
    generator = np.random.default_rng(seed)
    rows = pd.DataFrame({name: [f"{name}{i}" for i in range(count)] for name in LABELS})
    vectors = generator.normal(size=(count, width)).astype(np.float32)
    return Embeddings(rows, vectors, "w" * 64, "p" * 64)


@pytest.mark.parametrize("name", FORMATS)
class TestTravel:
    @settings(max_examples=25, deadline=None)
    @given(
        vectors=arrays.arrays(
            np.float32, (3, 2), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
        ),
        labels=st.lists(TEXT, min_size=3, max_size=3, unique=True),
    )
    def test_every_bit_and_label_comes_back(self, name, vectors, labels, tmp_path_factory):
        path = tmp_path_factory.mktemp("travel") / name
        rows = pd.DataFrame(dict.fromkeys(LABELS, labels))
        given_ = Embeddings(rows, vectors, "w", "p")
        save(given_, path)
        back = load(path)
        assert back.vectors.dtype == np.float32
        assert back.vectors.tobytes() == vectors.tobytes()
        assert back.rows.to_numpy().tolist() == rows.to_numpy().tolist()
        assert (back.weights, back.preprocessing) == ("w", "p")

    def test_names_that_look_like_numbers_or_nothing_stay(self, name, tmp_path):
        rows = some(3).rows.assign(individual=["007", "nan", ""], encounter=["1e5", "NA", "None"])
        save(dataclasses.replace(some(3), rows=rows), tmp_path / name)
        assert load(tmp_path / name).rows["individual"].tolist() == ["007", "nan", ""]
        assert load(tmp_path / name).rows["encounter"].tolist() == ["1e5", "NA", "None"]

    def test_what_differs_is_named(self, name, tmp_path):
        save(some(), tmp_path / name)
        chips = dict(some().rows[["annotation_id", "chip"]].to_numpy())
        load(tmp_path / name, "w" * 64, "p" * 64, chips)
        with pytest.raises(ValueError, match="other weights") as caught:
            load(tmp_path / name, "v" * 64, "p" * 64)
        assert "preprocessing" not in str(caught.value)
        with pytest.raises(ValueError, match="other preprocessing"):
            load(tmp_path / name, preprocessing="q")
        wanted = chips | {"annotation_id1": "cropped anew", "more": "x"}
        del wanted["annotation_id5"]
        with pytest.raises(ValueError, match="no embedding of more") as caught:
            load(tmp_path / name, chips=wanted)
        assert "embeddings of unknown annotation_id5" in str(caught.value)
        assert "another photo or box of annotation_id1." in str(caught.value)

    def test_a_file_of_two_networks_is_refused(self, name, tmp_path):
        save(some(), tmp_path / name)
        read, write = {
            "x.csv": (pd.read_csv, lambda table, path: table.to_csv(path, index=False)),
            "x.parquet": (pd.read_parquet, lambda table, path: table.to_parquet(path)),
        }[name]
        table = read(tmp_path / name)
        table.loc[2, "weights"] = "another"
        write(table, tmp_path / name)
        with pytest.raises(ValueError, match=r"rows of several weights|not of lists"):
            load(tmp_path / name)

    def test_a_file_without_a_column_is_refused(self, name, tmp_path):
        save(some(), tmp_path / name)
        if name == "x.csv":
            pd.read_csv(tmp_path / name).drop(columns="chip").to_csv(tmp_path / name, index=False)
            with pytest.raises(ValueError, match="no column chip"):
                load(tmp_path / name)
        (tmp_path / name).write_bytes(b"nothing of the kind\n")
        with pytest.raises(ValueError, match="holds no embeddings"):
            load(tmp_path / name)


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="written as"):
        save(some(), tmp_path / "x.npy")
    with pytest.raises(ValueError, match="read from"):
        load(tmp_path / "x.npy")


def test_what_does_not_fit_is_no_embeddings():
    rows, vectors = some().rows, some().vectors
    with pytest.raises(ValueError, match="do not fit"):
        Embeddings(rows[1:], vectors, "w", "p")
    with pytest.raises(ValueError, match="several embeddings of one annotation: same"):
        Embeddings(rows.assign(annotation_id="same"), vectors, "w", "p")
    vectors[3, 0] = np.nan
    with pytest.raises(ValueError, match="not finite for annotation_id3"):
        Embeddings(rows, vectors, "w", "p")


class TestSearch:
    @pytest.mark.parametrize("blocks", [(512, 65536), (3, 4), (1, 1)])
    def test_a_full_sort_of_the_cosines_agrees(self, blocks, monkeypatch):
        monkeypatch.setattr(embeddings, "BLOCK", blocks[0])
        monkeypatch.setattr(embeddings, "ROWS", blocks[1])
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
        with pytest.raises(ValueError, match="k is 0"):
            search(some(), some(), 0)

    @pytest.mark.parametrize("name", ["weights", "preprocessing"])
    def test_embeddings_of_another_origin_are_refused(self, name):
        with pytest.raises(ValueError, match=f"can't be compared: other {name}"):
            search(some(), dataclasses.replace(some(), **{name: "x"}), 1)

    def test_without_faiss_the_extra_is_named(self, monkeypatch):
        original = builtins.__import__

        def absent(name, *rest):
            if name == "faiss":
                raise ImportError("No module named 'faiss'")
            return original(name, *rest)

        monkeypatch.setattr(builtins, "__import__", absent)
        with pytest.raises(ImportError, match=r"pip install miewid-core\[faiss\]"):
            search(some(), some(), 1, approximate=True)

    @pytest.mark.filterwarnings("ignore:builtin type .*swig:DeprecationWarning")
    def test_faiss_finds_nearly_all(self):
        pytest.importorskip("faiss", reason="faiss, an optional extra, is not installed")
        database, queries = some(2000, 16), some(50, 16, seed=1)
        exact, near = (search(database, queries, 5, approximate=flag) for flag in (False, True))
        found = [len({*a} & {*b}) / 5 for a, b in zip(exact[1], near[1], strict=True)]
        assert np.mean(found) > 0.95
        assert near[0][:, 0] == pytest.approx(exact[0][:, 0], abs=0.05)


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
        (kept,) = (tmp_path / "kept").glob("*.parquet")
        before = kept.stat().st_mtime_ns
        again = embeddings.embed(weights, photos, tmp_path / "chips", tmp_path / "kept")
        assert again.vectors.tobytes() == made.vectors.tobytes()
        assert kept.stat().st_mtime_ns == before

    @pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
    def test_a_damaged_file_is_made_again(self, weights, photos, tmp_path, damage):
        places = tmp_path / "chips", tmp_path / "kept"
        made = embeddings.embed(weights, photos, *places)
        (kept,) = (tmp_path / "kept").glob("*.parquet")
        whole = bytearray(kept.read_bytes())
        half = len(whole) // 2
        whole[half] ^= 1
        damaged = {"cut": whole[:half], "flipped": whole, "empty": b""}[damage]
        kept.write_bytes(damaged)
        with pytest.raises(ValueError, match="holds no embeddings that can be used"):
            embeddings.load(kept)
        again = embeddings.embed(weights, photos, *places)
        assert again.vectors.tobytes() == made.vectors.tobytes()
        assert embeddings.load(kept).vectors.tobytes() == made.vectors.tobytes()

    def test_other_photos_labels_or_preprocessing_are_embedded_anew(
        self, weights, photos, tmp_path
    ):
        places = tmp_path / "chips", tmp_path / "kept"
        made = embeddings.embed(weights, photos, *places)
        embeddings.embed(weights, photos[1:], *places)
        embeddings.embed(weights, photos.assign(individual="ant/x"), *places)
        network, _ = model.load(weights)
        model.save(network, model.Preprocess.of("test_efficientnet", 40), weights)
        larger = embeddings.embed(weights, photos, *places)
        assert len(list((tmp_path / "kept").glob("*.parquet"))) == 4
        with pytest.raises(ValueError, match=r"other weights .* other preprocessing"):
            search(made, larger, 1)
