"""Optimiser, learning rate and moving average of a training."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tectum.recipes.config import OptimiserConfig


def make_optimiser(config: OptimiserConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimiser of the config; weight decay spares biases, norm scales and other vectors."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr)


def set_learning_rate(optimiser: Optimizer, config: OptimiserConfig, step: int, total: int) -> float:
    """Set and return the learning rate of `step` (from 0) of `total`: the warm-up, then the schedule."""
    factor = 1.0
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    if step < config.warmup_steps and config.warmup_from is not None:
        factor = (config.warmup_from / config.lr) ** (1 - step / config.warmup_steps)
    elif step < config.warmup_steps:
        factor = (step + 1) / config.warmup_steps
    elif config.schedule == "cosine":
        factor = (1 + math.cos(math.pi * done)) / 2
    elif config.schedule == "poly":
        factor = (1 - done) ** 0.9
    for group in optimiser.param_groups:
        group["lr"] = config.lr * factor
    return config.lr * factor


def clip_and_step(optimiser: Optimizer, config: OptimiserConfig) -> None:
    if config.gradient_clip is not None:
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
    optimiser.step()


def make_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """Exponential moving average of parameters and buffers, or None for decay 0."""
    if decay == 0:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
