import pytest
import torch

from tectum.models.layers.invertible import InvertibleBlock, InvertibleConv1x1


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def perturbed(module):
    """The module in float64, its parameters moved away from their start."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def test_convolution_is_inverted():
    layer = perturbed(InvertibleConv1x1(8))
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(layer.inverse(layer(x)), x, atol=1e-12, rtol=0)
    torch.testing.assert_close(layer(layer.inverse(x)), x, atol=1e-12, rtol=0)


def test_convolution_starts_as_a_rotation():
    layer = InvertibleConv1x1(16).double()
    weight = layer(torch.eye(16, dtype=torch.float64)[:, :, None, None])[:, :, 0, 0]
    torch.testing.assert_close(weight @ weight.T, torch.eye(16, dtype=torch.float64), atol=1e-6, rtol=0)


def test_determinant_is_the_product_of_the_scales():
    layer = perturbed(InvertibleConv1x1(8))
    weight = layer(torch.eye(8, dtype=torch.float64)[:, :, None, None])[:, :, 0, 0]
    torch.testing.assert_close(torch.linalg.slogdet(weight).logabsdet, layer.log_s.sum())


def test_masked_triangles_change_nothing():
    layer = InvertibleConv1x1(8)
    x = torch.randn(1, 8, 3, 3)
    before = layer(x)
    with torch.no_grad():
        layer.lower.add_(torch.ones(8, 8).triu())
        layer.upper.add_(torch.ones(8, 8).tril())
    torch.testing.assert_close(layer(x), before, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_block_is_inverted(dtype):
    block = perturbed(InvertibleBlock(32)).to(dtype)
    x = torch.randn(2, 32, 12, 9, dtype=dtype)
    with torch.no_grad():
        y = block(x)
        assert not torch.allclose(y, x, atol=0.1)
        torch.testing.assert_close(block.inverse(y), x, atol=1e-10 if dtype == torch.float64 else 1e-3, rtol=0)


def test_a_chain_of_blocks_is_inverted():
    blocks = [perturbed(InvertibleBlock(8)) for _ in range(5)]
    x = torch.randn(1, 8, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        y = x
        for block in blocks:
            y = block(y)
        for block in reversed(blocks):
            y = block.inverse(y)
    torch.testing.assert_close(y, x, atol=1e-8, rtol=0)


def test_scale_stays_within_its_bounds():
    block = InvertibleBlock(8)
    log_scale = block._log_scale(1e3 * torch.randn(1, 4, 6, 6))
    assert log_scale.abs().max() <= 0.8
