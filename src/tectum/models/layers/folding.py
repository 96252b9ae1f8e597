"""Folding of trained layers into fewer ones: weights are multiplied in float64 and stored in float32."""

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def convolution(
    weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A convolution with the given weight (out, in / groups, k, k) and bias (out)."""
    out_channels, in_channels, kernel, _ = weight.shape
    # On "meta", since random initial weights would be wasted, and would advance the random number generator.
    made = nn.Conv2d(
        in_channels * groups, out_channels, kernel, stride, padding, dilation, groups, bias is not None, device="meta"
    )
    made.weight = _parameter(weight)
    if bias is not None:
        made.bias = _parameter(bias)
    return made


def pointwise(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    """The 1x1 convolution by a matrix (out, in)."""
    return convolution(weight[:, :, None, None], bias)


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """A linear layer with the given weight (out, in) and bias (out)."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    made.weight = _parameter(weight)
    if bias is not None:
        made.bias = _parameter(bias)
    return made


def doubles(layer: nn.Conv2d | nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias in float64; zeros for the bias where there is none."""
    weight = layer.weight.detach().double()
    return weight, weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().double()


def with_norm(weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals the given one followed by a batch norm in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    fused_weight, fused_bias = fuse_conv_bn_weights(
        weight, bias, norm.running_mean.double(), norm.running_var.double(), norm.eps, norm.weight, norm.bias
    )
    return fused_weight.detach(), fused_bias.detach()


def fold_norms(layer: nn.Conv2d, *norms: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution that equals `layer` followed by batch norms in eval mode; the arguments are left as they are."""
    weight, bias = doubles(layer)
    for norm in norms:
        weight, bias = with_norm(weight, bias, norm)
    return reshaped(layer, weight, bias)


def reshaped(layer: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution with another weight and bias, but the stride, padding, dilation and groups of `layer`."""
    padding = layer.padding[0]
    assert isinstance(padding, int)
    return convolution(
        weight, bias, stride=layer.stride[0], padding=padding, dilation=layer.dilation[0], groups=layer.groups
    )


def for_scaled(layer: nn.Conv2d, scale: float, plane: bool) -> nn.Conv2d:
    """The convolution that equals `layer` on its input times `scale`.

    Args:
        layer: left as it is.
        scale: of the input.
        plane: the input is one plane, which stands for as many equal ones as `layer` has input channels.
    """
    weight, bias = doubles(layer)
    return reshaped(layer, (weight.sum(dim=1, keepdim=True) if plane else weight) * scale, bias)


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach().float().clone(), requires_grad=False)
