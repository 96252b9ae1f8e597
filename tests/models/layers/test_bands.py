import pytest
import torch

import tectum
from tectum.errors import ConfigError
from tectum.models.layers.bands import BandFusion, BandPicture, blur, coarse_bands, split_bands


def pair(size=(96, 128), batch=1):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(batch, 1, *size, generator=generator) for _ in range(2)]


def with_logits(fusion, biases):
    """The module with logits that are the same everywhere."""
    with torch.no_grad():
        fusion.logits.weight.zero_()
        fusion.logits.bias.copy_(torch.tensor(biases))
    return fusion.eval()


ALWAYS, NEVER = 40.0, -40.0


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (96, 320)])
def test_bands_add_up_to_the_image(size):
    planes = torch.cat(pair(size), dim=1)
    torch.testing.assert_close(sum(split_bands(planes)), planes)


def test_a_flat_image_is_all_base():
    planes = torch.full((1, 2, 64, 64), 0.3)
    *details, base = split_bands(planes)
    assert all(detail.abs().max() < 1e-6 for detail in details)
    torch.testing.assert_close(base, planes)


def test_coarse_bands_are_those_of_the_full_size():
    planes = torch.cat(pair((64, 64)), dim=1)
    first, *others = coarse_bands(planes)
    assert first.shape == (1, 2, 16, 16)
    torch.testing.assert_close(first, sum(others))


def test_blur_keeps_means_and_ramps():
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    torch.testing.assert_close(blur(ramp)[..., 1:-1], ramp[..., 1:-1])


@pytest.mark.parametrize("source", [0, 1])
def test_one_source_alone_comes_through_exactly(source):
    images = pair()
    own = [ALWAYS, NEVER] if source == 0 else [NEVER, ALWAYS]
    fusion = with_logits(BandFusion(4), [*own, 0, 0, 0, 0, *own, *own, (NEVER, ALWAYS)[source]])
    fused, weights = fusion(torch.zeros(1, 4, 24, 32), *images)
    torch.testing.assert_close(fused, images[source])
    torch.testing.assert_close(weights[:, source:6:2].min(), torch.tensor(1.0))


def test_details_of_both_on_the_base_of_one():
    visible, infrared = pair()
    fusion = with_logits(BandFusion(4), [ALWAYS, ALWAYS, 0, 0, 0, 0, *[ALWAYS] * 4, NEVER])
    fused, _ = fusion(torch.zeros(1, 4, 24, 32), visible, infrared)
    base = split_bands(infrared)[-1]
    torch.testing.assert_close(fused, visible + infrared - base, atol=1e-5, rtol=1e-5)


def test_weights_of_the_finest_band_follow_the_images():
    """A slope along the infrared image makes the choice by its brightness, pixel by pixel."""
    visible, infrared = torch.full((1, 1, 64, 64), 0.5), torch.zeros(1, 1, 64, 64)
    infrared[..., 21:40] = 1
    fusion = with_logits(BandFusion(4), [0, -80, 0, 0, 0, 40, *[0.0] * 5])
    _, weights = fusion(torch.zeros(1, 4, 16, 16), visible, infrared)
    torch.testing.assert_close(weights[:, 1:2], infrared)


@pytest.mark.parametrize("height", [32, 64, 96])
def test_rows_are_those_of_the_whole(height):
    torch.manual_seed(0)
    fusion = BandFusion(6).eval()
    with torch.no_grad():
        fusion.logits.weight.normal_()
        features, (visible, infrared) = torch.randn(1, 6, 40, 24), pair((160, 96))
        picture = BandPicture(fusion)
        whole = picture(features, visible, infrared)
        coarse = picture.coarse(features, visible, infrared)
        parts = [
            picture.rows(coarse, visible[:, :, top : top + height], infrared[:, :, top : top + height], top)
            for top in range(0, 160, height)
        ]
        torch.testing.assert_close(torch.cat(parts, dim=2), whole)
        torch.testing.assert_close(fusion(features, visible, infrared)[0], whole)


def test_random_weights_give_the_mean_of_both():
    torch.manual_seed(0)
    visible, infrared = pair()
    fused, weights = BandFusion(8)(torch.randn(1, 8, 24, 32), visible, infrared)
    assert (weights - 0.5).abs().max() < 0.25
    assert (fused - (visible + infrared) / 2).abs().mean() < 0.05


def test_features_are_noisy_in_training_only():
    torch.manual_seed(0)
    fusion = BandFusion(4)
    torch.nn.init.normal_(fusion.logits.weight)
    inputs = torch.randn(2, 4, 24, 32), *(image.expand(2, -1, -1, -1) for image in pair())
    first, second = fusion(*inputs)[0], fusion(*inputs)[0]
    assert (first - second).abs().max() > 1e-3
    fusion.eval()
    torch.testing.assert_close(fusion(*inputs)[0], fusion(*inputs)[0], atol=0, rtol=0)


def test_no_channels_is_refused():
    with pytest.raises(ConfigError, match="bands must be at least 1 channel"):
        BandFusion(-1)


def test_all_of_a_deployed_picture_carries_its_name_in_a_traced_graph():
    """By that name what stays in floating point under quantisation is found."""
    deployed = tectum.create_model("virmfs_lite0", band_fusion=4).eval().deploy()
    with torch.no_grad():
        traced = torch.jit.trace(deployed, (torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)), check_trace=False)
    graph = traced.graph.copy()
    torch._C._jit_pass_inline(graph)
    pools = [node for node in graph.nodes() if node.kind() == "aten::avg_pool2d"]
    assert len(pools) >= 4
    assert all("band_fusion" in node.scopeName() for node in pools)
