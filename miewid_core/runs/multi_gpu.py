"""The processes that share one training, a GPU each: torch.distributed's, or this one alone."""

import contextlib
import datetime
import os
from collections.abc import Iterable

import torch.distributed as dist
import torch.distributed.nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

WAIT = datetime.timedelta(days=30)  # for the first process, which may do other things meanwhile


def join() -> None:
    """Meet the other processes that torchrun started, and take the GPU of this one."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=WAIT)


def count() -> int:
    """Number of processes that share a training."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; the first one reads and writes what all need."""
    return dist.get_rank() if dist.is_initialized() else 0


def announce(what: object) -> None:
    """Tell the others, who `listen`, what to do next; only the first process does."""
    if count() > 1 and rank() == 0:
        dist.broadcast_object_list([what])


def listen() -> object:
    """What the first process announces."""
    heard = [None]
    dist.broadcast_object_list(heard)
    return heard[0]


def total(values: torch.Tensor) -> torch.Tensor:
    """Values summed over all processes."""
    values = values.clone()
    if count() > 1:
        dist.all_reduce(values)
    return values


def sum_gradients(parameters: Iterable[torch.Tensor]) -> None:
    """Add up the gradients of all processes, each of its share of a batch."""
    if count() == 1:
        return
    own = [p.grad for p in parameters if p.grad is not None]
    sums = [gradient.contiguous() for gradient in own]  # of channels_last it is a copy
    for work in [dist.all_reduce(each, async_op=True) for each in sums]:
        work.wait()
    for gradient, each in zip(own, sums, strict=True):
        gradient.copy_(each)


def whole_batches() -> contextlib.AbstractContextManager:
    """Within it, BatchNorm in training takes the statistics of all processes' shares together.

    torch's SyncBatchNorm does so on GPUs alone; this is the same on any device, without changing a
    network's modules, and in float32 under autocast.
    """
    return _WholeBatches() if count() > 1 else contextlib.nullcontext()


class _Total(torch.autograd.Function):
    """`total`, whose gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(_, values: torch.Tensor) -> torch.Tensor:
        return total(values)

    @staticmethod
    def backward(_, gradient: torch.Tensor) -> torch.Tensor:
        return total(gradient)


class _WholeBatches(TorchFunctionMode):
    def __torch_function__(self, called, types, args=(), kwargs=None):
        """Replace functional.batch_norm, which all BatchNorm modules of torch and timm call."""
        kwargs = kwargs or {}
        if called is functional.batch_norm and kwargs["training"]:
            return _batch_norm(*args, **kwargs)
        return called(*args, **kwargs)


def _batch_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
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
        sums = _Total.apply(torch.cat([own_mean * size, size]))
        mean, whole = sums[:-1] / sums[-1], sums[-1]
        # about the common mean: a difference of two large squares would lose digits
        var = _Total.apply((own_var + (own_mean - mean).square()) * size) / whole
        scale = (var + eps).rsqrt() * (1 if weight is None else weight)
        shift = -mean * scale + (0 if bias is None else bias)
        normal = torch.addcmul(shift.view(shape), wide, scale.view(shape)).to(x.dtype)
    if running_mean is not None:
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * whole / (whole - 1), momentum)
    return normal
