"""The paper's preset on a GPU: embedding and a training epoch, beside the textbook's loops.

With the bare matrix products that bound both. Without a GPU only "quick" sizes are measured.
"""

import pandas as pd
import torch

from miewid_core.bench import peers
from miewid_core.bench.measuring import Run, Task
from miewid_core.config import preset
from miewid_core.machine import default_device
from miewid_core.model import MiewIDNet
from miewid_core.paper.backbones import multiply_adds

WAYS = ("ours", "textbook")
SIDE = 8192  # of the matrices whose product nothing exceeds


def prepare_gpu(way: str, stage: str, size: int, preset_name: str, batch: int) -> Run:
    """What is timed: a stage of `size` photos, or a product of matrices with `size` rows."""
    if stage == "product":
        return prepare_product(size)
    return peers.prepare_peers(way, stage, "demo", size, preset_name, batch)


def prepare_product(side: int) -> Run:
    """A product of square matrices in bfloat16 on a GPU, else in float32."""
    device = default_device()
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    factor = torch.randn(side, side, device=device, dtype=kind)

    def run() -> None:
        factor @ factor
        if device.type == "cuda":
            torch.cuda.synchronize()

    run()
    return run


def cases(preset_name: str, photos: int, batch: int, side: int) -> list[dict[str, object]]:
    """A case for each stage."""
    options = {"preset_name": preset_name, "batch": batch}
    stages = ({"stage": stage, "size": photos} | options for stage in ("embedding", "epoch"))
    return [{"stage": "product", "size": side, "ways": ("ours",)} | options, *stages]


GPU = Task(
    "gpu",
    WAYS,
    {"quick": cases("demo", 8, 4, 64), "full": cases("paper", 2240, 112, SIDE)},
    prepare_gpu,
    peers.answer,
    allowed=0.05,  # bfloat16 on a GPU
    gpu=True,
)


def in_words(measured: pd.DataFrame) -> str:
    """Our rates, and the share of the GPU's matrix products that they use."""
    own = measured[measured["way"] == "ours"]
    size, seconds = (own.groupby("stage")[name].median() for name in ("size", "seconds"))
    limit = 2 * size["product"] ** 3 / seconds["product"]  # operations a second
    config = preset(own["preset_name"].iloc[0], pretrained=False)
    once = 2 * multiply_adds(MiewIDNet(config.backbone, False), config.image_size)
    lines = [f"Preset `{own['preset_name'].iloc[0]}` on {own['machine'].iloc[0]}:"]
    for stage, passes in (("epoch", 3), ("embedding", 1)):  # backward is twice the forward
        rate = size[stage] / seconds[stage]
        share = 100 * passes * once * rate / limit
        lines.append(f"- {stage}: {rate:,.0f} photos/s, {share:.0f} % of the GPU's products.")
    return "\n".join([*lines, f"- The products alone: {limit / 1e12:,.0f} TFLOP/s."])
