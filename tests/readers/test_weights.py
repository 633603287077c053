"""Weights of the authors' kinds, and ours: read whole, or refused with what to do."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from miewid_core import model
from miewid_core.model import MiewIDNet, Preprocess
from miewid_core.readers.weights import load_model


def released_keys():
    """Names and shapes in conservationxlabs/miewid-msv2 and -msv3, from timm's own."""
    with torch.device("meta"):
        backbone = timm.create_model("efficientnetv2_rw_m", num_classes=0, global_pool="")
    shapes = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    shapes["pooling.p"] = torch.empty(1, device="meta")
    for name in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"bn.{name}"] = torch.empty(2152, device="meta")
    shapes["bn.num_batches_tracked"] = torch.empty((), dtype=torch.int64, device="meta")
    return shapes


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A file like the released ones, and its tensors."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in released_keys().items():
        if value.dtype == torch.int64:
            state[key] = torch.tensor(7)
        elif key.endswith("running_var") or key == "pooling.p":
            state[key] = torch.full(value.shape, 1.5)
        else:
            state[key] = torch.empty(value.shape).normal_(0, 0.05, generator=generator)
    path = tmp_path_factory.mktemp("released") / "model.safetensors"
    save_file(state, path, {"format": "pt"})
    return path, state


@pytest.mark.slow
def test_released_weights_load_and_are_used(released, caplog):
    path, state = released
    assert load_model(path, size=256)[1].size == 256
    assert not caplog.records
    network, preprocess = load_model(path)
    assert "names no image size: taken for 440 px" in caplog.text
    assert preprocess == Preprocess(440, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    loaded = network.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    assert network.n_features == 2152
    assert not network.training
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = network.backbone(image)
        pooled = maps.clamp(min=1e-6).pow(1.5).mean((2, 3)).pow(1 / 1.5)
        moved = (pooled - state["bn.running_mean"]) / (1.5 + 1e-5) ** 0.5
        expected = moved * state["bn.weight"] + state["bn.bias"]
        torch.testing.assert_close(network(image), expected, rtol=1e-3, atol=1e-4)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        drawn = MiewIDNet("test_efficientnet").eval()
        torch.nn.init.normal_(drawn.bn.running_mean)
    return drawn


def test_ours_are_read_as_they_were_saved(network, tmp_path):
    preprocess = Preprocess(64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    model.save(network, preprocess, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        again, found = load_model(path)
        assert found == preprocess
        assert torch.equal(again.bn.running_mean, network.bn.running_mean)


THEIRS = {"model_params": {"model_name": "test_efficientnet"}, "data": {"image_size": [96, 96]}}


def checkpoint(path, network, **changes):
    """As `save_checkpoint` of the authors' code writes it: the score is one of NumPy's."""
    content = {"epoch": 3, "model_state_dict": network.state_dict(), "config": THEIRS}
    content |= {"best_score": np.mean([0.25, 0.5]), "best_cmc": [0.5] * 20}
    content |= {"optimizer_state_dict": torch.optim.Adam(network.parameters()).state_dict()}
    torch.save(content | changes, path)
    return path


def as_released(network, folder, **config):
    """A folder of the hub: weights without our metadata, and config.json."""
    save_file(network.state_dict(), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "miewid"} | config))
    return folder


@pytest.mark.parametrize("name", ["checkpoint_latest.pth", "model_best.bin"])
def test_the_authors_checkpoint_is_read_with_its_backbone_and_image_size(network, tmp_path, name):
    again, preprocess = load_model(checkpoint(tmp_path / name, network))
    assert preprocess == Preprocess(96, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert not again.training
    loaded = again.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())


def test_their_classifier_is_left_out_and_all_else_must_fit(network, tmp_path):
    state = network.state_dict()
    headed = state | {"backbone.classifier.weight": torch.zeros(7, 256)}
    load_model(checkpoint(tmp_path / "headed.pth", network, model_state_dict=headed))
    strange = state | {"fc.weight": torch.zeros(7, 256)}
    with pytest.raises(ValueError, match=r"strange\.pth does not fit: unexpected fc\.weight"):
        load_model(checkpoint(tmp_path / "strange.pth", network, model_state_dict=strange))
    with pytest.raises(ValueError, match=r"epoch is no tensor"):
        load_model(checkpoint(tmp_path / "odd.pth", network, model_state_dict={"epoch": 3}))
    with pytest.raises(ValueError, match=r"there is no file .*gone\.pth"):
        load_model(tmp_path / "gone.pth")


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"PK\x03\x04", b"\x80\x04\x95" + b"\x00" * 99]
)
def test_what_is_no_checkpoint_is_refused_as_a_pickle(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pth is a pickle"):
        load_model(tmp_path / "a.pth")


@pytest.mark.parametrize("key", ["image_size", "img_size"])
@pytest.mark.parametrize("size", [96, [96, 96]])
def test_a_folder_of_the_hub_is_read_by_its_config(network, tmp_path, key, size):
    """An image size other than the released 440 px became 440 px in silence."""
    folder = as_released(network, tmp_path, model_name="test_efficientnet", **{key: size})
    for path in (folder, str(folder), folder / "model.safetensors"):
        again, preprocess = load_model(path)
        assert preprocess.size == 96
        assert again.name == "test_efficientnet"


def test_an_image_size_that_is_not_said_is_asked_for(network, tmp_path):
    folder = as_released(network, tmp_path, model_name="test_efficientnet")
    with pytest.raises(ValueError, match=r"names no image size: give it as size="):
        load_model(folder)
    assert load_model(folder, size=128)[1].size == 128


@pytest.mark.parametrize("size", [[96, 64], "96", 0.5, [[96]], -1])
def test_an_image_size_that_can_not_be_is_refused(network, tmp_path, size):
    folder = as_released(network, tmp_path, model_name="test_efficientnet", image_size=size)
    with pytest.raises(ValueError, match=r"its image size is .*, no side in pixels"):
        load_model(folder)


def test_a_damaged_config_of_the_hub_is_refused(network, tmp_path):
    (as_released(network, tmp_path) / "config.json").write_text("{nope")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load_model(tmp_path)


def test_their_vision_transformers_are_refused(tmp_path):
    """Their code embeds by the class token, ours pools: the same weights, other embeddings."""
    network = MiewIDNet("test_vit", image_size=64)
    folder = as_released(network, tmp_path, model_name="test_vit", image_size=64)
    with pytest.raises(ValueError, match="class token"):
        load_model(folder)
