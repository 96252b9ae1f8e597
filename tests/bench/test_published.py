import pytest
import torch

import tectum
from tectum.bench.published import gigaflops, published


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("virmfs_b0", {}),
        ("virmfs_b0", {"wiring": "symmetric", "input_mean": 0.5, "input_scale": 2.0}),
        ("mafs_r18", {"gate": "paired"}),
        ("mafs_r18", {"gate": "first"}),
    ],
    ids=["asymmetric", "symmetric", "paired", "first"],
)
@pytest.mark.slow
def test_published_networks_compute_the_same(name, arguments):
    torch.manual_seed(0)
    model = tectum.create_model(name, **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    # In float64: the invertible blocks of MAFS amplify rounding.
    visible, infrared = torch.rand(1, 3, 64, 96).double(), torch.rand(1, 1, 64, 96).double()
    with torch.no_grad():
        fused, logits = published(model).double()(visible, infrared)
        expected = model.double()(visible, infrared)
    torch.testing.assert_close(fused, expected.fused, atol=1e-6, rtol=0)
    torch.testing.assert_close(logits, expected.logits, atol=1e-6, rtol=0)


def test_published_networks_do_the_published_work():
    # 19.0 GMACs of ViR-MFS b0 were measured on the released network, with two backbone passes and unfolded heads.
    network = published(tectum.create_model("virmfs_b0"))
    assert gigaflops(network, 480, 640) == pytest.approx(38.0, abs=0.3)


def test_operations_of_a_fusion_in_bands_are_counted_too():
    plain, bands = (tectum.create_model("virmfs_lite0", band_fusion=width).eval() for width in (0, 8))
    assert gigaflops(plain, 64, 96) < gigaflops(bands, 64, 96) < 1.5 * gigaflops(plain, 64, 96)


def test_unpublished_options_are_refused():
    with pytest.raises(ValueError, match="one wavelet level"):
        published(tectum.create_model("virmfs_b0", levels=2))
