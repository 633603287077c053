"""What a network costs: parameters, multiply-adds of a photo, photos per second."""

import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from miewid_core.config import TrainConfig
from miewid_core.machine import default_device
from miewid_core.paper.comparison import ENDS, compare, with_interval

COUNTERPART = {  # preset: a vision transformer to set beside its backbone
    # 6 million multiply-adds a photo at 64 px, the backbone 9; others learn nothing at demo's rate
    "demo": "efficientvit_m0",
    "compact": "deit_tiny_patch16_224",  # ImageNet-1k alone, as the backbone; 0.6 and 0.2 billion
    "paper": "swinv2_base_window16_256",  # at 256 px no stage needs padding; 22 and 8 billion
}


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
    networks: Mapping[str, nn.Module], size: int, batch_size: int = 32, rounds: int = 5
) -> pd.DataFrame:
    """Measured rate at which each network embeds batches: columns network, round, rate.

    The networks take turns, so that what else the machine does meanwhile slows all of them alike.
    """
    device = default_device()
    photos = torch.rand(batch_size, 3, size, size, device=device)
    photos = photos.contiguous(memory_format=torch.channels_last)
    rows = []
    for turn in tqdm(range(rounds), "measuring"):
        for name, network in networks.items():
            rows.append((name, turn, batch_size / _seconds(network, photos)))
    return pd.DataFrame(rows, columns=["network", "round", "rate"])


def _seconds(network: nn.Module, photos: torch.Tensor, batches: int = 5) -> float:
    """Median time of a batch, after one that doesn't count."""
    kind, times = photos.device.type, []
    network.eval()
    with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
        for _ in range(1 + batches):
            start = time.perf_counter()
            network(photos)
            if kind == "cuda":  # which is told what to do, and does it later
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def costs(networks: Mapping[str, nn.Module], size: int, rates: pd.DataFrame) -> pd.DataFrame:
    """One row per network: parameters, multiply_adds, photos_per_second and its range.

    `rates`: of `photos_per_second`; the median of its rounds, and `slowest` and `fastest` of them.
    """
    counts = {name: (parameters(own), multiply_adds(own, size)) for name, own in networks.items()}
    table = pd.DataFrame(counts, ["parameters", "multiply_adds"]).T.rename_axis("network")
    measured = rates.groupby("network")["rate"].agg(
        photos_per_second="median", slowest="min", fastest="max"
    )
    return table.join(measured).reset_index()


def beside_costs(
    table: pd.DataFrame, costs: pd.DataFrame, words: Mapping[str, str]
) -> pd.DataFrame:
    """Costs (of `costs`) with each network's name and mean top-1 from a table of `compare`.

    Columns network, name, species (of the mean), top_1, _low, _high (percent), costs.
    """
    mean, networks = table.iloc[-1], costs["network"]
    scores = {f"top_1{end}": [mean[f"{name}{end}"] for name in networks] for end in ENDS}
    who = {"network": networks, "name": networks.map(words), "species": len(table) - 1}
    return pd.DataFrame(who | scores).join(costs.drop(columns="network"))


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `beside_costs` for a reader."""
    return pd.DataFrame(
        {
            "network": table["name"],
            "top-1 (%)": with_interval(table, "top_1"),
            "parameters (million)": (table["parameters"] / 1e6).map("{:,.2f}".format),
            "multiply-adds (million)": (table["multiply_adds"] / 1e6).map("{:,.1f}".format),
            "photos per second": with_interval(
                table, "photos_per_second", "slowest", "fastest", decimals=0
            ),
        }
    )


def spread(trainings: Sequence[pd.DataFrame]) -> float:
    """Standard deviation, in points, of the mean over species between trainings of one network."""
    means = [compare({"top_1": ranks})["top_1"].iloc[-1] for ranks in trainings]
    return float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
