"""Descriptors against timm itself: preprocessing, weights, cache, and errors."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import save_file

from miewid_core import evaluation, model
from miewid_core.config import PRESETS
from miewid_core.evaluation import one_vs_all
from miewid_core.model import MiewIDNet, Preprocess
from miewid_core.paper.comparison import compare
from miewid_core.paper.descriptors import (
    MEGADESCRIPTOR,
    Descriptor,
    choose,
    measured,
    named,
    ours,
)
from miewid_core.paper.study import open_study
from miewid_core.readers.weights import IMAGENET

NAME = "test_efficientnet"
RANDOM = Descriptor(NAME, False, "a title")


def photo(rows):
    return [Image.open(path).convert("RGB") for path in rows["path"]]


def by_timm(network, images, size):
    """Pooled features (N, D) by timm's own evaluation transform, told to squash and not to crop."""
    data = timm.data.resolve_model_data_config(network)
    how = {"crop_mode": "squash", "crop_pct": 1.0, "interpolation": "bilinear"}
    transform = timm.data.create_transform(**data | how)
    batch = torch.stack([transform(image) for image in images])
    assert batch.shape[2:] == (size, size)
    with torch.inference_mode():
        return network.eval()(batch).numpy()


def model_folder(folder, name=NAME, **changes):
    """A model's files as on the hub: config.json and weights; returns the network saved."""
    network = timm.create_model(name, num_classes=0)
    config = {**network.pretrained_cfg, **changes}
    keep = ("input_size", "mean", "std", "interpolation", "crop_pct", "classifier", "first_conv")
    saved = {"architecture": name, "num_classes": 0, "num_features": network.num_features}
    saved["pretrained_cfg"] = {key: config[key] for key in keep} | {"num_classes": 0}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(saved))
    save_file(network.state_dict(), folder / "model.safetensors")
    return network


@pytest.mark.parametrize("name", [NAME, "test_vit", "test_coatnet"])
def test_native_size_and_statistics_are_those_of_timm(name):
    network, preprocess = Descriptor(name, False, "").load()
    expected = timm.get_pretrained_cfg(name)
    assert preprocess.size == expected.input_size[1] == 160
    assert (preprocess.mean, preprocess.std) == (expected.mean, expected.std)
    assert not network.training


@pytest.mark.parametrize("shape", [(200, 90), (160, 160), (70, 300)])
def test_preprocessing_equals_timms_with_the_whole_photo_kept(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    network, preprocess = Descriptor("test_vit", False, "").load()
    expected = by_timm(network, [Image.fromarray(pixels)], 160)
    with torch.inference_mode():
        got = network(preprocess(pixels)[None]).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_embeddings_and_ranks_equal_those_of_timm(photos, tmp_path):
    network = model_folder(tmp_path / "hub", mean=(0.3, 0.4, 0.5), input_size=(3, 64, 64))
    network.pretrained_cfg = dict(network.pretrained_cfg, mean=(0.3, 0.4, 0.5))
    network.pretrained_cfg["input_size"] = (3, 64, 64)
    chosen = Descriptor(f"local-dir:{tmp_path / 'hub'}", True, "")
    expected = by_timm(network, photo(photos), 64)
    got = chosen.embed(photos, tmp_path / "chips", tmp_path)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-4)
    labels = (photos[name] for name in ("individual", "species", "encounter", "annotation_id"))
    wanted = one_vs_all(expected, *labels)
    exact = ["annotation_id", "species", "relevant", "first_match_rank"]
    labels = (photos[name] for name in ("individual", "species", "encounter", "annotation_id"))
    pd.testing.assert_frame_equal(one_vs_all(got, *labels)[exact], wanted[exact])


class TestWeights:
    def test_random_ones_are_the_same_again_and_leave_torchs_alone(self):
        before = torch.get_rng_state()
        first, again = (RANDOM.load()[0].state_dict()["conv_stem.weight"] for _ in range(2))
        assert torch.equal(before, torch.get_rng_state())
        assert torch.equal(first, again)

    @pytest.mark.parametrize("classes", [0, 10])
    def test_a_file_fits_with_and_without_a_classifier(self, tmp_path, classes):
        saved = timm.create_model(NAME, num_classes=classes)
        path = tmp_path / "w.safetensors"
        save_file(saved.state_dict(), path)
        network, _ = Descriptor(NAME, str(path), "").load()
        images = torch.rand(2, 3, 160, 160)
        with torch.inference_mode():
            pooled = saved.eval().forward_head(saved.forward_features(images), pre_logits=True)
            torch.testing.assert_close(network(images), pooled)

    def test_a_file_of_another_network_names_what_differs(self, tmp_path):
        path = tmp_path / "other.safetensors"
        save_file(timm.create_model("test_vit").state_dict(), path)
        with pytest.raises(ValueError, match=r"other\.safetensors does not fit: missing"):
            Descriptor(NAME, str(path), "").load()

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(ValueError, match=r"none\.safetensors"):
            Descriptor(NAME, str(tmp_path / "none.safetensors"), "").load()


class TestErrors:
    def test_an_unreachable_hub_names_both_remedies(self, monkeypatch):
        def unreachable(*_, **__):
            raise LocalEntryNotFoundError("no connection")

        monkeypatch.setattr(timm, "create_model", unreachable)
        remedies = r"no connection.*local-dir:FOLDER.*descriptor_weights="
        with pytest.raises(ValueError, match=remedies):
            Descriptor(MEGADESCRIPTOR, True, "").load()

    @pytest.mark.parametrize("name", ["no_such_network", "ftp:some/model", "local-dir:nowhere"])
    def test_a_strange_name_says_what_a_name_is(self, name):
        with pytest.raises(ValueError, match=f"{name}.*local-dir:FOLDER"):
            Descriptor(name, True, "").load()

    def test_photos_must_be_square(self, tmp_path):
        model_folder(tmp_path, input_size=(3, 64, 96))
        with pytest.raises(ValueError, match="96 x 64; chips are square"):
            Descriptor(f"local-dir:{tmp_path}", True, "").load()


class TestCache:
    def files(self, folder):
        return sorted(path.name for path in folder.glob("*.safetensors"))

    def test_is_found_again_without_the_network_running(self, photos, tmp_path, monkeypatch):
        first = RANDOM.embed(photos, tmp_path / "chips", tmp_path)
        monkeypatch.setattr(evaluation, "embed", None)
        again = RANDOM.embed(photos, tmp_path / "chips", tmp_path)
        np.testing.assert_array_equal(first, again)

    def test_other_weights_photos_or_preprocessing_are_other_files(self, photos, tmp_path):
        hub = tmp_path / "hub"
        for rows in (photos, photos[::-1], photos[:-1]):
            RANDOM.embed(rows, tmp_path / "chips", tmp_path)
        save_file(timm.create_model(NAME).state_dict(), tmp_path / "w.bin")
        Descriptor(NAME, str(tmp_path / "w.bin"), "").embed(photos, tmp_path / "chips", tmp_path)
        assert len(self.files(tmp_path)) == 4
        network = model_folder(hub)
        for std in ((0.2, 0.2, 0.2), (0.3, 0.3, 0.3)):
            config = json.loads((hub / "config.json").read_text())
            config["pretrained_cfg"]["std"] = std
            (hub / "config.json").write_text(json.dumps(config))
            Descriptor(f"local-dir:{hub}", True, "").embed(photos, tmp_path / "chips", tmp_path)
        assert len(self.files(tmp_path)) == 6
        config["model_args"] = {"global_pool": "max"}
        (hub / "config.json").write_text(json.dumps(config))
        Descriptor(f"local-dir:{hub}", True, "").embed(photos, tmp_path / "chips", tmp_path)
        assert len(self.files(tmp_path)) == 7
        assert network.num_features == 256


class TestChoose:
    def test_defaults(self):
        demo, compact, paper = (choose(name, PRESETS[name]) for name in PRESETS)
        assert demo == Descriptor(NAME, False, f"{NAME} (random weights, 160 px)")
        lite = "tf_efficientnet_lite0"
        assert compact == Descriptor(lite, True, f"{lite} (ImageNet, 224 px)")
        assert demo.load()[1].size == 160 != PRESETS["demo"].image_size
        assert paper == Descriptor(MEGADESCRIPTOR, True, "MegaDescriptor-L-384")

    def test_weights_of_a_file_are_not_called_imagenets(self):
        config = dataclasses.replace(PRESETS["compact"], pretrained="some/w.safetensors")
        assert choose("compact", config).title == "tf_efficientnet_lite0 (pretrained, 224 px)"

    def test_what_is_named_goes_first(self):
        config = PRESETS["compact"]
        assert choose("paper", config, "resnet18") == Descriptor("resnet18", True, "resnet18")
        file = "some/folder/w.safetensors"
        named = choose("demo", config, "resnet18", file)
        assert named == Descriptor("resnet18", file, "resnet18 (w.safetensors)")
        assert choose("demo", config, "local-dir:a=b/mega", "").title == "mega"


class TestSeveral:
    @pytest.fixture
    def study(self, small_catalog, tmp_path):
        folders = {"figures_dir": tmp_path / "figures", "runs_dir": tmp_path / "runs"}
        opened = open_study(str(small_catalog), **folders)
        return dataclasses.replace(opened, chips_dir=tmp_path / "chips")

    def test_each_is_measured_on_the_same_queries_at_its_own_size(self, study, tmp_path):
        model_folder(tmp_path / "hub", input_size=(3, 64, 64))
        save_file(timm.create_model(NAME).state_dict(), tmp_path / "w.safetensors")
        ours = MiewIDNet(NAME, False, 32)
        model.save(ours, Preprocess(32, *IMAGENET), tmp_path / "msv9" / "model.safetensors")
        words = ["test_vit=random", f"{NAME}={tmp_path}/w.safetensors", f"local-dir:{tmp_path}/hub"]
        chosen = [named(word) for word in [*words, f"{tmp_path}/msv9"]]
        table, missing = measured(study, chosen)
        assert missing == []
        titles = ["test_vit (random weights)", f"{NAME} (w.safetensors)", "hub", "msv9"]
        assert table["descriptor"].tolist() == titles
        assert table["pixels"].tolist() == [160, 160, 64, 32]
        assert table["length"].tolist() == [64, 256, 256, 256]
        for own, row in zip(chosen, table.itertuples(), strict=True):
            ranks = own.ranks(study)
            means = [evaluation.top_k(of, 1) for _, of in ranks.groupby("species")]
            assert row.top_1 == pytest.approx(100 * np.mean(means))
            assert (row.species, row.queries) == (2, len(study.test))
            assert row.top_1_low < row.top_1 < row.top_1_high or row.top_1 in (0, 100)
        one, *_ = (own.load()[0] for own in chosen)
        assert table["parameters"][0] == sum(weights.numel() for weights in one.parameters())

    def test_our_networks_are_rows_of_the_same_table(self, study):
        rankings = {"left_out": study.ranks(study.untrained())}
        means = compare(rankings)
        (row,) = ours(study, means, {"left_out": "leave-one-out"}).to_dict("records")
        network, preprocess = study.untrained().run().load()
        assert row["parameters"] == sum(weights.numel() for weights in network.parameters())
        assert [row["descriptor"], row["pixels"]] == ["leave-one-out", preprocess.size]
        assert [row["length"], row["species"], row["queries"]] == [256, 2, len(study.test)]
        ends = ["", "_low", "_high"]
        found = [row[f"top_1{end}"] for end in ends]
        assert found == means.iloc[-1][[f"left_out{end}" for end in ends]].tolist()
        columns = measured(study, [RANDOM])[0].columns
        assert set(row) == set(columns)

    def test_our_network_read_as_a_descriptor_gives_the_same_ranks(self, study):
        start = study.untrained()
        read = Descriptor(str(start.run().weights), True, "").ranks(study)
        assert read["first_match_rank"].equals(study.ranks(start)["first_match_rank"])

    def test_one_that_cannot_be_had_is_said_and_the_others_are_measured(self, study, monkeypatch):
        create = timm.create_model

        def unreachable(name, **options):
            if name == MEGADESCRIPTOR:
                raise LocalEntryNotFoundError("no connection")
            return create(name, **options)

        monkeypatch.setattr(timm, "create_model", unreachable)
        words = [MEGADESCRIPTOR, "test_vit=random", "test_vit=none.bin", "no_such_network"]
        table, missing = measured(study, [named(word) for word in words])
        assert table["descriptor"].tolist() == ["test_vit (random weights)"]
        said = [MEGADESCRIPTOR, "none.bin is no readable safetensors file", "no_such_network"]
        assert len(missing) == len(said)
        for sentence, word in zip(missing, said, strict=True):
            assert sentence.startswith("Not measured: ")
            assert word in sentence
