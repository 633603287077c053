"""Costs against closed forms, published counts, and networks that only sleep."""

import dataclasses
import time

import numpy as np
import pandas as pd
import pytest
import timm
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from miewid_core.config import PRESETS
from miewid_core.model import MiewIDNet
from miewid_core.paper import backbones
from miewid_core.paper.comparison import compare
from miewid_core.paper.intervals import Estimate, Spread
from miewid_core.runs.run import Training


class Attention(nn.Module):
    """Each column of pixels is a token of 3 x size values, all attend to all."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter()

    def forward(self, x):
        tokens = x.flatten(1, 2).transpose(1, 2)[:, None]  # (B, 1, size, 3 * size)
        return scaled_dot_product_attention(tokens, tokens, tokens)


class Sleep(nn.Module):
    """Takes `seconds` for a batch."""

    def __init__(self, seconds, calls=None):
        super().__init__()
        self.seconds, self.calls = seconds, [] if calls is None else calls

    def forward(self, x):
        self.calls.append(self)
        time.sleep(self.seconds)


CLOSED_FORMS = {  # of photos of 12 pixels
    "conv": (nn.Conv2d(3, 5, 3, padding=1), 12 * 12 * 5 * 3 * 9),
    "stride and groups": (nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3), 6 * 6 * 6 * 9),
    "linear": (nn.Sequential(nn.Flatten(), nn.Linear(432, 7)), 432 * 7),
    "norm is free": (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), 144 * 3 * 4),
    "attention": (Attention(), 2 * 12 * 12 * 36),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_multiply_adds_in_closed_form(name):
    network, expected = CLOSED_FORMS[name]
    assert backbones.multiply_adds(network, 12) == expected


@pytest.mark.parametrize(
    ("name", "size", "millions", "billions"),
    [  # as timm's results-imagenet table prints them
        ("resnet18", 224, 11.69, 1.82),
        ("deit_tiny_patch16_224", 224, 5.72, 1.26),
    ],
)
def test_published_counts(name, size, millions, billions):
    network = timm.create_model(name)
    assert backbones.parameters(network) / 1e6 == pytest.approx(millions, abs=0.01)
    assert backbones.multiply_adds(network, size) / 1e9 == pytest.approx(billions, rel=0.03)


def test_rates_are_those_of_the_clock_and_taken_in_turns():
    calls = []
    networks = {"slow": Sleep(0.04, calls), "fast": Sleep(0.01, calls)}
    rates = backbones.photos_per_second(networks, size=4, batch_size=8, rounds=2)
    assert rates["network"].tolist() == ["slow", "fast"] * 2
    assert rates["round"].tolist() == [0, 0, 1, 1]
    for name, network in networks.items():
        own = rates.loc[rates["network"] == name, "rate"]
        assert own.between(0.5 * 8 / network.seconds, 8 / network.seconds).all()
    order = [first for first, then in zip([None, *calls], calls, strict=False) if first is not then]
    assert len(order) == 4  # each network once a round


def test_costs_by_hand():
    networks = {"one": nn.Conv2d(3, 5, 1), "two": nn.Conv2d(3, 1, 1, bias=False)}
    rates = [("one", 0, 9.0), ("one", 1, 1.0), ("one", 2, 4.0)]
    rates += [("two", 0, 3.0), ("two", 1, 1.0), ("two", 2, 2.0)]
    rates = pd.DataFrame(rates, columns=["network", "round", "rate"])
    table = backbones.costs(networks, 4, rates)
    assert table.to_dict("list") == {
        "network": ["one", "two"],
        "parameters": [20, 3],
        "multiply_adds": [16 * 15, 16 * 3],
        "photos_per_second": [4.0, 2.0],
        "relative": [1.0, 0.5],
        "slowest": [1.0, 1 / 3],
        "fastest": [1.0, 1.0],
    }


def ranks(right, of=40):
    """So many of 40 queries right: four individuals with ten photos."""
    return pd.DataFrame(
        {
            "annotation_id": [f"{number}" for number in range(of)],
            "species": "a",
            "individual": [f"a/{number % 4}" for number in range(of)],
            "first_match_rank": np.where(np.arange(of) < right, 1, 9),
            "relevant": 9,
            "candidates": 39,
        }
    ).astype({"first_match_rank": "Int64"})


NOTHING = "This says nothing about the backbones: {} hardly learned, {} over the untrained start."
FOUND = "Backbones: {}, top-1 {} against {} %, {}."


@pytest.mark.parametrize(
    ("rights", "starts", "lost", "found"),
    [
        ((38, 5), (3, 4), ["small"], ""),
        ((3, 4), (3, 4), ["large", "small"], ""),
        ((38, 20), (3, 4), [], "large is better than small"),
        ((20, 38), (3, 4), [], "large is worse than small"),
        ((37, 38), (3, 4), [], "no difference is shown between large and small"),
    ],
)
def test_no_backbone_is_called_better_than_one_that_hardly_learned(rights, starts, lost, found):
    words = {"first": "large", "second": "small"}
    rankings = {name: [ranks(right)] for name, right in zip(words, rights, strict=True)}
    before = {name: ranks(right) for name, right in zip(words, starts, strict=True)}
    learned = backbones.learned(rankings, before, words, {"second": Spread(5.0, 2.0)})
    table = compare(rankings, training_sd={"second": Spread(5.0, 2.0)})
    rows = learned.set_index("name")
    gains = [f"{Estimate.of(rows.loc[name], 'gain')}" for name in lost]
    gain = Estimate.of(table.iloc[-1], "gain_over_second")
    first, second = (f"{right / 0.4:.1f}" for right in rights)
    told = FOUND.format(found, first, second, gain)
    if lost:
        told = NOTHING.format(" and ".join(lost), " and ".join(gains))
    assert backbones.in_words(table, learned) == told
    assert backbones.claim(table, learned) in told


def test_a_backbone_whose_weights_cannot_be_had_ends_the_notebook(monkeypatch, photos, tmp_path):
    def unreachable(*_, **__):
        raise LocalEntryNotFoundError("no connection")

    def training(**changes):
        config = dataclasses.replace(PRESETS["demo"], **changes)
        return Training("", photos, config, 0, tmp_path, tmp_path)

    monkeypatch.setattr(timm, "create_model", unreachable)
    backbones.require(training())  # begins with random weights
    with pytest.raises(ValueError, match=r"left out: .* those of test_efficientnet could not"):
        backbones.require(training(pretrained=True))
    with pytest.raises(ValueError, match=r"^timm .* has no backbone 'efnet'"):  # a slip is none
        backbones.require(training(backbone="efnet", pretrained=True))


class TestPair:
    def test_both_start_alike(self):
        for name, config in PRESETS.items():
            both = backbones.pair(name, config)
            assert list(both) == ["backbone", "other_backbone"]
            own = {"backbone": config.backbone, "pretrained": config.pretrained}
            assert both["backbone"] == own
            other = {"backbone": backbones.COUNTERPART[name], "pretrained": name != "demo"}
            assert both["other_backbone"] == other
            scratch = backbones.pair(name, config, from_scratch=True).values()
            assert [changes["pretrained"] for changes in scratch] == [False, False]

    def test_a_weights_file_is_the_first_ones_alone(self):
        config = dataclasses.replace(PRESETS["compact"], pretrained="a.safetensors")
        first, second = backbones.pair("compact", config, "resnet18").values()
        assert first == {"backbone": config.backbone, "pretrained": "a.safetensors"}
        assert second == {"backbone": "resnet18", "pretrained": True}
        _, second = backbones.pair("compact", config, other_weights="b.safetensors").values()
        assert second["pretrained"] == "b.safetensors"
        with pytest.raises(ValueError, match="give no other_pretrained with it"):
            backbones.pair("compact", config, "", True, "b.safetensors")

    def test_costs_about_as_much_on_the_demo(self):
        size = PRESETS["demo"].image_size
        names = PRESETS["demo"].backbone, backbones.COUNTERPART["demo"]
        first, second = (backbones.multiply_adds(MiewIDNet(n, False, size), size) for n in names)
        assert 0.5 < second / first < 2

    def test_frozen_stages_are_other_shares_of_each(self):
        # as notebook 10 says of preset "compact"
        config, shares = PRESETS["compact"], []
        for name in (config.backbone, backbones.COUNTERPART["compact"]):
            network = MiewIDNet(name, False, config.image_size)
            frozen = sum(map(backbones.parameters, network.first_layers(config.frozen_stages)))
            shares.append(frozen / backbones.parameters(network.backbone))
        assert shares == pytest.approx([0.02, 0.27], abs=0.005)

    @pytest.mark.parametrize("preset", ["compact", "paper"])
    def test_takes_photos_of_the_presets_size(self, preset):
        size = PRESETS[preset].image_size
        network = timm.get_pretrained_cfg(backbones.COUNTERPART[preset])
        assert size == network.input_size[1] or network.fixed_input_size
