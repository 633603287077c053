"""The paper's preset on a GPU: embedding and a training epoch, beside the textbook's loops.

With the bare matrix products that bound both. Without a GPU only "quick" sizes are measured.
"""

import torch

from miewid_core.bench import peers
from miewid_core.bench.measuring import Run, Task
from miewid_core.machine import default_device

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
