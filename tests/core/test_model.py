"""The network: pooling against loops, every kind of backbone, and files that fit or are refused."""

import dataclasses
import subprocess
import sys
from itertools import pairwise

import albumentations
import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import v2

from miewid_core import model
from miewid_core.model import GeM, MiewIDNet, Preprocess


def slow_gem(x, p, eps=1e-6):
    pooled = []
    for channels in x.flatten(2).double().tolist():
        pooled.append([])
        for values in channels:
            mean = sum(max(value, eps) ** p for value in values) / len(values)
            pooled[-1].append(mean ** (1 / p))
    return torch.tensor(pooled, dtype=torch.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(1, 5), st.sampled_from([(4, 3), (2, 5), (7,), (1, 1)]))
def test_gem_is_the_mean_of_powers(seed, p, places):
    x = torch.randn(2, 3, *places, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(GeM(p)(x), slow_gem(x, p), rtol=1e-4, atol=1e-6)


def test_gem_goes_from_the_mean_to_the_maximum():
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) + 0.1
    torch.testing.assert_close(GeM(1.0)(x), x.mean((2, 3)))
    between = [GeM(p)(x) for p in (1.0, 2.0, 3.0, 10.0)]
    assert all((a < b).all() for a, b in pairwise([*between, x.amax((2, 3))]))
    torch.testing.assert_close(GeM(150.0)(x), x.amax((2, 3)), rtol=0.02, atol=0)
    assert GeM().p.shape == (1,)
    assert GeM().p.item() == 3


@pytest.mark.parametrize("p", [3.0, 6.5, 7.2, 12.0])
def test_gem_learns_from_channels_without_any_signal(p):
    """1e-6 ** p is 0 in float32 for a p that training may reach; its root had no finite slope."""
    pool = GeM(p)
    x = torch.full((1, 2, 3, 3), -0.2)
    x[0, 1] = torch.linspace(-1, 1, 9).view(3, 3)
    x.requires_grad_()
    pooled = pool(x)
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert x.grad.isfinite().all()
    assert pool.p.grad.isfinite().all()
    assert (x.grad[0, 0] == 0).all()
    assert pooled[0, 0] < 1e-2


def test_gem_pools_in_float32_under_autocast():
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        pooled = GeM()(x)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, slow_gem(x, 3.0), rtol=1e-5, atol=1e-6)


BACKBONES = {  # name -> sizes that it is built for
    "test_efficientnet": (64, 96),
    "test_resnet": (64, 96),
    "test_convnext": (64,),
    "test_vit": (64, 96),  # a class token, fixed size
    "test_vit2": (64,),  # register tokens
    "swinv2_cr_tiny_ns_224": (64,),  # NCHW at last
    "swinv2_tiny_window8_256": (64,),  # NHWC
}
CASES = [(name, size) for name, sizes in BACKBONES.items() for size in sizes]


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
@pytest.mark.parametrize(("name", "size"), CASES)
def test_every_kind_of_backbone_is_pooled_over_its_places(name, size):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MiewIDNet(name, image_size=size).eval()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = network(images)
        features = network.backbone.forward_features(images)
        channels = network.backbone.num_features
        if features.ndim == 3:
            places = features[:, network.backbone.num_prefix_tokens :]
        else:
            axis = features.shape.index(channels, 1)
            places = features.movedim(axis, -1).flatten(1, -2)
    assert found.shape == (2, network.n_features) == (2, channels)
    assert found.dtype == torch.float32
    pooled = slow_gem(places.transpose(1, 2), 3.0)
    expected = pooled / (1 + network.bn.eps) ** 0.5  # as BatchNorm is when drawn
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert places.shape[1] in {(size // stride) ** 2 for stride in (8, 16, 32)}


def test_names_are_those_of_the_released_weights():
    network = MiewIDNet("test_efficientnet")
    assert {key.split(".")[0] for key in network.state_dict()} == {"backbone", "pooling", "bn"}
    assert network.name == "test_efficientnet"


@pytest.fixture
def saved(tmp_path):
    """A small network, and the file that it was saved to."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = MiewIDNet("test_efficientnet").eval()
        torch.nn.init.normal_(network.bn.running_mean)
    path = tmp_path / "weights.safetensors"
    model.save(network, Preprocess(64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), path)
    return network, path


def test_a_saved_network_comes_back_bit_by_bit(saved):
    network, path = saved
    again, preprocess = model.load(path)
    assert preprocess == Preprocess(64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert not again.training
    for (key, one), (same, other) in zip(
        network.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert key == same
        assert torch.equal(one, other)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    with torch.no_grad():
        given_ = preprocess(image)[None]
        network = network.to(memory_format=torch.channels_last)
        assert torch.equal(again(given_), network(given_))
    model.save(again, preprocess, path.with_name("again.safetensors"))
    assert path.with_name("again.safetensors").read_bytes() == path.read_bytes()


def test_a_fixed_size_backbone_comes_back_at_its_size(tmp_path):
    network = MiewIDNet("test_vit", image_size=64).eval()
    model.save(network, Preprocess.of("test_vit", 64), tmp_path / "vit.safetensors")
    again, preprocess = model.load(tmp_path / "vit.safetensors")
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert preprocess == Preprocess(64, (0.5,) * 3, (0.5,) * 3)
    with torch.no_grad():
        torch.testing.assert_close(again(image), network(image))


def test_weights_of_another_origin_are_not_ours(tmp_path):
    save_file(MiewIDNet("test_efficientnet").state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="load_model"):
        model.load(tmp_path / "a.safetensors")


def pretrained_file(folder, name, **options):
    """timm's own weights of a backbone, with a classifier, as timm saves them."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        whole = timm.create_model(name, **options)
    save_file(whole.state_dict(), folder / "pretrained.safetensors")
    return folder / "pretrained.safetensors", whole.state_dict()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_efficientnet", {"num_classes": 7}),
        ("test_efficientnet", {"num_classes": 0}),
        ("test_vit", {"num_classes": 7, "img_size": 64}),
        ("swinv2_cr_tiny_ns_224", {"num_classes": 3, "img_size": 64}),
    ],
)
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_pretrained_weights_are_read_from_a_file(tmp_path, name, options):
    path, state = pretrained_file(tmp_path, name, **options)
    for given_ in (path, str(path)):
        loaded = MiewIDNet(name, given_, options.get("img_size")).backbone.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in loaded.items())
        head = {key for key in state if key not in loaded}
        assert {key.rsplit(".", 1)[1] for key in head} <= {"weight", "bias"}
        assert len(head) == (2 if options["num_classes"] else 0)


def test_pretrained_weights_of_another_backbone_are_refused(tmp_path):
    path, _ = pretrained_file(tmp_path, "test_efficientnet")
    with pytest.raises(ValueError, match=r"pretrained\.safetensors does not fit: missing"):
        MiewIDNet("test_resnet", path)


def test_no_network_is_said_with_what_to_do(monkeypatch):
    def offline(*_, **options):
        assert options["pretrained"] is True
        raise ConnectionError("no route")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"(?s)no route.*local safetensors file, or False"):
        MiewIDNet("test_efficientnet", pretrained=True)


@pytest.mark.parametrize(("height", "width"), [(50, 70), (33, 20), (64, 64)])
def test_preprocess_is_resize_and_normalise(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preprocess = Preprocess(40, mean, std)
    by_torchvision = v2.Compose(
        [
            v2.Resize((40, 40), antialias=True),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )
    expected = by_torchvision(Image.fromarray(pixels))
    for image in (pixels, Image.fromarray(pixels)):
        found = preprocess(image)
        assert found.shape == (3, 40, 40)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(50, 70), (33, 20), (64, 64)])
def test_the_plugins_preprocessing_is_albumentations_resize_and_normalize(height, width):
    """As the authors' evaluation and the Wildbook plugin have it: no antialiasing."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    theirs = albumentations.Compose([albumentations.Resize(40, 40), albumentations.Normalize()])
    expected = torch.from_numpy(theirs(image=pixels)["image"]).permute(2, 0, 1)
    plugin, card = Preprocess(40, mean, std, "plugin"), Preprocess(40, mean, std)
    torch.testing.assert_close(plugin(Image.fromarray(pixels)), expected, rtol=0, atol=1e-5)
    assert not torch.equal(plugin(pixels), card(pixels)) or (height, width) == (40, 40)


def test_preprocessings_are_told_apart_and_older_files_stay(saved):
    network, path = saved
    card = Preprocess(64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    plugin = dataclasses.replace(card, resizing="plugin")
    assert card.record().keys() == {"size", "mean", "std"}  # as written before there were two
    model.save(network, plugin, path)
    assert model.load(path)[1] == plugin != card
    assert plugin.record() != card.record()
    with pytest.raises(ValueError, match="'card' or 'plugin'"):
        dataclasses.replace(card, resizing="bicubic")


def test_preprocess_takes_images_of_any_mode():
    gray = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    preprocess = Preprocess(6, (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(preprocess(gray), preprocess(np.asarray(gray.convert("RGB"))))


def test_batches_are_normalised_as_single_images_are():
    chips = torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8)
    preprocess = Preprocess(8, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    batch = preprocess.batch(chips)
    assert batch.shape == (3, 3, 8, 8)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for one, chip in zip(batch, chips, strict=True):
        assert torch.equal(one, preprocess(chip.numpy()))


@pytest.mark.slow
def test_a_network_needs_no_package_of_catalogs_or_photos():
    code = (
        "import sys, miewid_core.model; print({'pandas', 'cv2', 'albumentations'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
