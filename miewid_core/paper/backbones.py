"""What a network costs: parameters, multiply-adds of a photo, photos per second."""

import statistics
import time
from collections.abc import Mapping

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from miewid_core.config import TrainConfig
from miewid_core.figures import PAGE, Figure, styled
from miewid_core.machine import default_device
from miewid_core.paper.comparison import LOOKS

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
    """Multiplications, each with its addition, for one photo of `size` pixels a side.

    Those of convolutions and matrix products, attention's among them; what works value by value
    (normalisation, activations) doesn't count, as is usual.
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
    measured = rates.groupby("network")["rate"].agg([statistics.median, "min", "max"])
    return pd.DataFrame(
        {
            "network": list(networks),
            "parameters": [parameters(network) for network in networks.values()],
            "multiply_adds": [multiply_adds(network, size) for network in networks.values()],
            "photos_per_second": [measured["median"][name] for name in networks],
            "slowest": [measured["min"][name] for name in networks],
            "fastest": [measured["max"][name] for name in networks],
        }
    )


@styled()
def accuracy_against_cost(table: pd.DataFrame, title: str) -> Figure:
    """Mean top-1 with its 95 % interval against multiply-adds and against photos per second.

    `table`: one row for each of two networks, of `versus.beside_costs`. On the right the horizontal
    bar spans the measured rounds.
    """
    drawn = Figure(title, 2.6, PAGE)
    left, right = drawn.subplots(1, 2, sharey=True)
    for row, (marker, colour, fill, _) in zip(table.itertuples(), LOOKS, strict=True):
        words = f"{row.name} ({row.parameters / 1e6:,.1f} M parameters)"
        look = {"color": colour, "markerfacecolor": fill, "markersize": 6, "ls": ""}
        for axes, x in ((left, row.multiply_adds / 1e6), (right, row.photos_per_second)):
            axes.vlines(x, row.top_1_low, row.top_1_high, colour, linewidth=1)
            axes.plot(x, row.top_1, marker, label=words, **look)
        right.hlines(row.top_1, row.slowest, row.fastest, colour, linewidth=1)
    left.set_ylabel(f"top-1 accuracy (%), mean of {row.species}\nspecies with 95 % interval")
    left.set_xlabel("multiply-adds per photo (millions)")
    right.set_xlabel("photos per second (median, slowest to fastest round)")
    for axes in (left, right):
        _log(axes)
    drawn.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return drawn


def _log(axes: Axes) -> None:
    """A logarithmic x axis with room at both ends and its numbers written out."""
    axes.set_xscale("log")  # first: the limits of a linear axis can lie below zero
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.5, high * 1.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
