import torch

from tectum.models.layers.correction import FullSizeCorrection


def test_can_be_the_pixelwise_maximum():
    correction = FullSizeCorrection(3)
    state = {key: torch.zeros_like(value) for key, value in correction.state_dict().items()}
    # Planes: fused, luminance, infrared. ReLU(v - i) + ReLU(i) - ReLU(f), on images without negative values.
    state["first.weight"][:, :, 1, 1] = torch.tensor([[0.0, 1, -1], [0, 0, 1], [1, 0, 0]])
    state["second.weight"][0, :, 1, 1] = torch.tensor([1.0, 1, -1])
    correction.load_state_dict(state)
    fused, luminance, infrared = torch.rand(3, 2, 1, 7, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(correction(fused, luminance, infrared), torch.maximum(luminance, infrared))


def test_borders_are_no_edges():
    torch.manual_seed(0)
    correction = FullSizeCorrection(4)
    torch.nn.init.normal_(correction.second.weight)
    planes = [torch.full((1, 1, 6, 8), value) for value in (0.2, 0.5, 0.7)]
    corrected = correction(*planes)
    torch.testing.assert_close(corrected, corrected[:, :, :1, :1].expand_as(corrected))
    assert not torch.allclose(corrected, planes[0])
