"""Networks and inputs that the tests of several networks share."""

import torch
from torch import nn

import tectum


def random_pair(height=64, width=96, batch=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(batch, channels, height, width, generator=generator).to(dtype) for channels in (3, 1))


def randomised(name, **arguments):
    """A network in eval mode in which nothing is at the value where folding it would be trivial."""
    torch.manual_seed(0)
    model = tectum.create_model(name, **arguments).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    moved = ("scale.weight", "temperature", "mix_logits", "bonus.weight")
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            # Biases, norms, gammas, factors per channel, temperatures, mixes, and what starts at zero; not the weights
            # of layers.
            if parameter.ndim == 1 or key.endswith(moved):
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model
