"""One training shared by several processes, a GPU each, that torchrun starts."""

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator

import pandas as pd
import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_reduce  # later, it would keep the group alive
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from miewid_core import training
from miewid_core.model import MiewIDNet, Preprocess

WAIT = datetime.timedelta(days=30)  # for the first process, which may do other things meanwhile


@contextlib.contextmanager
def joined() -> Iterator[bool]:
    """Within it, the processes that torchrun started train together; yields whether to begin.

    The first one is to begin trainings there, by `fit`. Each of the others shares them, until the
    first one leaves; then it gets False. After an error torchrun ends them all.
    """
    join()
    first = dist.get_rank() == 0
    while not first and (heard := listen()) is not None:
        fit(*heard[0], **heard[1])
    yield first
    if first:
        dist.broadcast_object_list([None])
    dist.destroy_process_group()


def join() -> None:
    """Meet the other processes that torchrun started, and take the GPU of this one."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=WAIT)


def count() -> int:
    """Number of processes that have joined, this one included."""
    return dist.get_world_size() if dist.is_initialized() else 1


def fit(*given: object, **named: object) -> tuple[MiewIDNet, Preprocess, pd.DataFrame]:
    """`training.fit`, with the same arguments, shared by the processes that have joined this one.

    All end with the same weights; the first one reads and writes the checkpoint.
    """
    if count() == 1:
        return training.fit(*given, **named)
    if dist.get_rank() == 0:
        dist.broadcast_object_list([(given, named)])
    return training.fit(*given, **named, trainer=SharedTrainer)


def listen() -> tuple[tuple, dict] | None:
    """The arguments of the next training that the first process begins; None once it has left."""
    heard = [None]
    dist.broadcast_object_list(heard)
    return heard[0]


class SharedTrainer(training.Trainer):
    """A training of which each process learns its share of each batch."""

    def __init__(self, *given: object) -> None:
        super().__init__(*given)
        self.rank, self.processes = dist.get_rank(), count()
        self.optimizer.register_step_pre_hook(lambda *_: sum_gradients(self.parameters))

    def step(
        self, chips: torch.Tensor, labels: torch.Tensor, global_batch: int = 0
    ) -> torch.Tensor:
        """Learn from this process's share of a batch; returns the summed loss of all shares."""
        with GlobalBatchNorm():
            return all_reduce(super().step(chips, labels, global_batch))


def sum_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Add up the gradients of all processes, each of its share of a batch."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    sums = [gradient.contiguous() for gradient in gradients]  # of channels_last it is a copy
    for work in [dist.all_reduce(each, async_op=True) for each in sums]:
        work.wait()
    for gradient, each in zip(gradients, sums, strict=True):
        gradient.copy_(each)


class GlobalBatchNorm(TorchFunctionMode):
    """Within it, BatchNorm in training takes the statistics of all processes' shares together.

    torch's SyncBatchNorm does so on GPUs alone; this is the same on any device, without changing a
    network's modules, and in float32 under autocast.
    """

    def __torch_function__(self, called, types, args=(), kwargs=None):
        """Replace functional.batch_norm, which all BatchNorm modules of torch and timm call."""
        kwargs = kwargs or {}
        if called is functional.batch_norm and kwargs["training"]:
            return _batch_norm(*args, **kwargs)
        return called(*args, **kwargs)


def _batch_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> torch.Tensor:
    """functional.batch_norm of x (B, C, ...) in training."""
    axes, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
    with torch.autocast(x.device.type, enabled=False):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        own_var, own_mean = torch.var_mean(wide, axes, correction=0)  # (C,)
        size = torch.full_like(own_mean[:1], x.numel() / x.shape[1])
        sums = all_reduce(torch.cat([own_mean * size, size]))
        mean, items = sums[:-1] / sums[-1], sums[-1]
        # about the common mean: a difference of two large squares would lose digits
        var = all_reduce((own_var + (own_mean - mean).square()) * size) / items
        scale = (var + eps).rsqrt() * weight
        shift = bias - mean * scale
        normal = torch.addcmul(shift.view(shape), wide, scale.view(shape)).to(x.dtype)
    with torch.no_grad():
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * items / (items - 1), momentum)
    return normal
