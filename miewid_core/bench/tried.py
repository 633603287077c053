"""What was tried to make a training step faster, each beside the step as it is."""

from collections.abc import Callable

import torch
from tqdm import tqdm

from miewid_core.bench.step import batch_of, trainer
from miewid_core.config import preset
from miewid_core.machine import keep_freed_memory

WAYS = (
    *("ours", "torch.compile", "bfloat16", "twice the batch", "a third of classes"),
    *("memory given back", "NCHW", "Adam unfused"),  # what ours would be without
)
SIZES = {
    "quick": [],  # compiling alone takes a minute
    "full": [{"preset_name": "compact", "batch": 48, "classes": 1000}],
}
ALLOWED = 0
CALLS = 2


def prepare(way: str, preset_name: str, batch: int, classes: int) -> Callable[[], object]:
    """What is timed: two steps of `batch` photos, or one of twice as many."""
    double = way == "twice the batch"
    config = preset(preset_name, pretrained=False, batch_size=batch * (1 + double))
    if way != "memory given back":
        keep_freed_memory()
    # sampled classes: the batch's own, and random others up to a third
    made = trainer(config, classes // 3 if way == "a third of classes" else classes)
    chips, labels = batch_of(config, made.head.margins.numel())
    if way == "torch.compile":
        made.model.compile()
    elif way == "NCHW":
        made.model.to(memory_format=torch.contiguous_format)
    elif way == "bfloat16":  # outside, it would not reach into the step, which says float32
        made.model.forward = torch.autocast("cpu", torch.bfloat16)(made.model.forward)
    elif way == "Adam unfused":
        made.optimizer = torch.optim.Adam(made.parameters, lr=config.peak_rate)

    def steps() -> None:
        for _ in range(1 if double else 2):
            made.step(chips, labels, tqdm(disable=True))

    steps()
    return steps


def differences(ways: list[str]) -> dict[str, float]:
    """None is looked for: what changes the weights was not kept anyway."""
    return dict.fromkeys(ways, 0.0)
