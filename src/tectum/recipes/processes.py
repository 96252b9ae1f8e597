"""Training on one process or on several: what is shared out, and what is averaged."""

from collections.abc import Iterable
from typing import TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tectum.errors import ConfigError
from tectum.recipes.config import Precision, RunConfig

Model = TypeVar("Model", bound=nn.Module)


def make_accelerator(config: RunConfig) -> Accelerator:
    """The devices and processes of this run: CPU, GPU, or what `accelerate launch` started.

    Raises:
        ConfigError: when the batch cannot be shared out evenly.
    """
    accelerator = Accelerator()
    if config.batch % accelerator.num_processes:
        raise ConfigError(
            f"run.batch={config.batch} cannot be shared by {accelerator.num_processes} processes: make it a multiple"
        )
    return accelerator


def autocast(precision: Precision, accelerator: Accelerator) -> torch.autocast:
    """Context of a forward pass; not accelerate's own, which fixes one precision for the whole process."""
    return torch.autocast(accelerator.device.type, torch.bfloat16, enabled=precision == "bf16")


def place(model: Model, accelerator: Accelerator) -> Model:
    """Move to this process's device; batch statistics span all processes where the device can (GPUs)."""
    if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model.to(accelerator.device)


def average_gradients(parameters: Iterable[nn.Parameter], accelerator: Accelerator) -> None:
    """Mean of the gradients over all processes, in place. A parameter without a gradient counts as zero.

    Done here rather than by DistributedDataParallel, which has no second-order gradients and stops at a parameter that
    some process did not use (a share of the batch without labels).
    """
    if accelerator.num_processes == 1:
        return
    used = [p for p in parameters if p.requires_grad]
    for p in used:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    flat = accelerator.reduce(nn.utils.parameters_to_vector([p.grad for p in used if p.grad is not None]), "mean")
    at = 0
    for p in used:
        p.grad = flat[at : at + p.numel()].view_as(p)
        at += p.numel()


def average_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Mean of the running statistics over all processes, in place, so that every process keeps the same network."""
    if accelerator.num_processes == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.copy_(accelerator.reduce(buffer, "mean"))


def mean_over_processes(total: Tensor, weight: Tensor, accelerator: Accelerator) -> Tensor:
    """This process's share of sum(total) / sum(weight): the mean of the shares over the processes is that quotient."""
    if accelerator.num_processes > 1:
        weight = accelerator.reduce(weight.detach(), "mean")
    return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)
