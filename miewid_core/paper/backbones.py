"""What a network costs: parameters, multiply-adds of a photo, photos per second."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from miewid_core import progress
from miewid_core.config import TrainConfig
from miewid_core.machine import default_device
from miewid_core.model import MiewIDNet
from miewid_core.paper import comparison
from miewid_core.paper.comparison import Ranking, compare
from miewid_core.paper.intervals import ENDS, NO_SPREAD, Estimate, Spread, with_heads
from miewid_core.runs.run import Training, versions

COUNTERPART = {  # preset: a vision transformer to set beside its backbone
    # 3 of its 12 blocks attend: pure ones hardly learn here. 16 million multiply-adds, 9 the first
    "demo": "edgenext_xx_small",
    "compact": "deit_tiny_patch16_224",  # ImageNet-1k alone, as the backbone; 0.6 and 0.2 billion
    "paper": "swinv2_base_window16_256",  # at 256 px no stage needs padding; 22 and 8 billion
}
NAMES = {  # what text calls these backbones of timm
    "tf_efficientnet_lite0": "EfficientNet-Lite0",
    "deit_tiny_patch16_224": "DeiT-Tiny",
    "efficientnetv2_rw_m": "EfficientNetV2-M",
    "swinv2_base_window16_256": "SwinV2-Base",
}
BATCH, BATCHES = 32, 5  # photos, and so many times, for measuring the speed


def pair(
    preset: str,
    config: TrainConfig,
    other: str = "",
    from_scratch: bool = False,
    other_weights: str = "",
) -> dict[str, dict[str, object]]:
    """Fields of `config` for a training of its `backbone`, and for one of the `other_backbone`.

    `other`: a timm name, or "" for the preset's counterpart. It starts from the safetensors file
    `other_weights`, or else from timm's ImageNet weights where the first one starts from any;
    `from_scratch` starts both from random ones. ValueError where both are asked for.
    """
    if from_scratch and other_weights:
        raise ValueError("from_scratch trains without weights: give no other_pretrained with it")
    weights = False if from_scratch else config.pretrained
    first = {"backbone": config.backbone, "pretrained": weights}
    second = {"backbone": other or COUNTERPART[preset]}
    second["pretrained"] = other_weights or weights is not False
    return {"backbone": first, "other_backbone": second}


def require(training: Training) -> None:
    """End the notebook in a sentence where ImageNet weights of a training can't be downloaded."""
    config = training.config
    if config.pretrained is not True or training.finished:
        return
    try:
        MiewIDNet(config.backbone, True, config.image_size)
    except ValueError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        from miewid_core.runs.notebooks import skip_rest  # seldom

        skip_rest(
            "Figure 4 is left out: it compares two backbones that start from pretrained weights, "
            f"and those of {config.backbone} could not be downloaded. Give other_pretrained= a "
            "local safetensors file, or from_scratch=True."
        )


def parameters(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: nn.Module, size: int) -> int:
    """Multiply-adds of convolutions and matrix products for one photo of `size` pixels a side.

    Normalisation and activations don't count, as is usual.
    """
    photo = torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
    # fused attention is one operation whose products FlopCounterMode doesn't see on a CPU
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        network.eval()(photo)
    return counter.get_total_flops() // 2


def photos_per_second(
    networks: Mapping[str, nn.Module], size: int, batch_size: int = BATCH, rounds: int = 5
) -> pd.DataFrame:
    """Measured rate at which each network embeds batches: columns network, round, rate.

    The networks take turns, so that what else the machine does meanwhile slows all of them alike.
    """
    device, rows = default_device(), []
    photos = torch.rand(batch_size, 3, size, size, device=device)
    photos = photos.contiguous(memory_format=torch.channels_last)
    bfloat16 = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    for turn in progress(range(rounds), "measuring"):
        for name, network in networks.items():
            network.eval()
            ends = []
            with torch.inference_mode(), bfloat16:
                for _ in range(1 + BATCHES):  # the first one warms up
                    network(photos)
                    if device.type == "cuda":  # else the clock is read before it is done
                        torch.cuda.synchronize()
                    ends.append(time.perf_counter())
            rows.append((name, turn, batch_size * BATCHES / (ends[-1] - ends[0])))
    return pd.DataFrame(rows, columns=["network", "round", "rate"])


def conditions() -> str:
    """On what `photos_per_second` measures, in a sentence."""
    made = versions()
    return (
        f"Speed: on {made['device']}, threads: {made['threads']}, in batches of {BATCH} photos. "
        "Elsewhere the ratio may differ."
    )


def costs(networks: Mapping[str, nn.Module], size: int, rates: pd.DataFrame) -> pd.DataFrame:
    """One row per network: parameters, multiply_adds, photos_per_second, and how fast it is.

    `rates`: of `photos_per_second`, the median of which it has. `relative`: its rate as a multiple
    of the first network's in the same round, with the `slowest` and `fastest` of the rounds.
    """
    counts = {name: (parameters(own), multiply_adds(own, size)) for name, own in networks.items()}
    table = pd.DataFrame(counts, ["parameters", "multiply_adds"]).T.rename_axis("network")
    measured = rates.pivot(index="round", columns="network", values="rate")
    table["photos_per_second"] = measured.median()
    ratios = measured.div(measured[next(iter(networks))], axis=0)
    ratios = ratios.agg(["median", "min", "max"]).T
    ratios.columns = ["relative", "slowest", "fastest"]
    return table.join(ratios).reset_index()


def learned(
    rankings: Mapping[str, Ranking],
    starts: Mapping[str, pd.DataFrame],
    words: Mapping[str, str],
    training_sd: Mapping[str, Spread],
) -> pd.DataFrame:
    """One row per network: its top-1 beside that of its start, means over species in percent.

    Columns network, name (of `words`), trainings; top_1 and gain (over `untrained`, the `starts`)
    with _low and _high; learned: whether the gain is shown. `training_sd`: as of `compare`.
    """
    rows = []
    for name, ranks in rankings.items():
        spread = {"top_1": training_sd.get(name, NO_SPREAD)}
        mean = compare({"top_1": ranks, "untrained": starts[name]}, training_sd=spread).iloc[-1]
        gain = {f"gain{end}": mean[f"gain_over_untrained{end}"] for end in ENDS}
        facts = mean[["top_1_trainings", "top_1", "top_1_low", "top_1_high", "untrained"]]
        rows.append({"network": name, "name": words[name], **facts, **gain})
    table = pd.DataFrame(rows).rename(columns={"top_1_trainings": "trainings"})
    return table.assign(learned=table["gain_low"] > 0)


def claim(table: pd.DataFrame, learned: pd.DataFrame) -> str:
    """Which backbone is better, if that is shown, or that one hardly learned, in a few words.

    `table`: of `compare`, the first network against the other; `learned`: of `learned`.
    """
    names = learned.set_index("network")["name"]
    lost = names[~learned["learned"].to_numpy()]
    if lost.empty:
        return f"Backbones: {comparison.claim(table, names.to_dict())}"
    return f"This says nothing about the backbones: {' and '.join(lost)} hardly learned"


def in_words(table: pd.DataFrame, learned: pd.DataFrame) -> str:
    """The `claim` with its number: the gain over the other, or of one that hardly learned."""
    lost = learned[~learned["learned"]]
    if len(lost):
        gains = " and ".join(str(Estimate.of(row, "gain")) for _, row in lost.iterrows())
        return f"{claim(table, learned)}, {gains} over the untrained start."
    mean, (first, second) = table.iloc[-1], learned["network"]
    return (
        f"{claim(table, learned)}, top-1 {mean[first]:.1f} against {mean[second]:.1f} %, "
        f"{Estimate.of(mean, f'gain_over_{second}')}."
    )


def start_in_words(both: Mapping[str, Mapping[str, object]]) -> str:
    """What the two networks of a `pair` start from, in a sentence."""
    known = {True: "ImageNet weights", False: "random weights"}
    weights = (changes["pretrained"] for changes in both.values())
    first, second = (known.get(own) or f"`{Path(own).name}`" for own in weights)
    if first == second:
        return f"Both start from {first}."
    return f"The first starts from {first}, the second from {second}."


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `learned` joined with `costs`, for a reader."""
    heads = {
        "name": "network",
        "top_1": "top-1 (%)",
        "untrained": "untrained (%)",
        "gain": "gain over untrained (points)",
        "parameters": "parameters (million)",
        "multiply_adds": "multiply-adds (million)",
        "speed": "speed (% of the first's)",
    }
    millions = table[["parameters", "multiply_adds"]] / 1e6
    speed = 100 * table[["relative", "slowest", "fastest"]]
    speed.columns = ["speed", "speed_low", "speed_high"]
    speed.iloc[0, 1:] = np.nan  # the first is the measure
    return with_heads(table.assign(**millions, **speed), heads)
