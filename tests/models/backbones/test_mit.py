import pytest
import torch

from tectum.models.backbones.mit import MixVisionTransformer
from tectum.models.backbones.mit_weights import convert_mit, load_backbone

transformers = pytest.importorskip("transformers")


@pytest.fixture(params=["b0", "b2"])
def reference(request):
    """A SegFormer encoder of transformers with random weights, with ViR-MFS's activation."""
    depths, widths = {"b0": ([2, 2, 2, 2], [32, 64, 160, 256]), "b2": ([3, 4, 6, 3], [64, 128, 320, 512])}[
        request.param
    ]
    torch.manual_seed(0)
    config = transformers.SegformerConfig(depths=depths, hidden_sizes=widths, hidden_act="gelu_pytorch_tanh")
    return request.param, transformers.SegformerModel(config).eval()


def test_converted_backbone_equals_transformers(reference, tmp_path):
    size, model = reference
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight, 1, 0.1)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    model.save_pretrained(tmp_path / "copy")
    assert convert_mit(tmp_path / "copy", tmp_path / "backbone.safetensors") == size
    ours = MixVisionTransformer(size).eval()
    load_backbone(ours, tmp_path / "backbone.safetensors")
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(x, output_hidden_states=True).hidden_states
        for feature, other in zip(ours(x), expected, strict=True):
            # transformers has LayerNorm eps 1e-5 where ours is 1e-6.
            torch.testing.assert_close(feature, other, atol=1e-3, rtol=1e-3)


def test_one_channel_counts_as_repeated():
    model = MixVisionTransformer("b0").eval()
    grey = torch.rand(1, 1, 32, 64)
    with torch.no_grad():
        for single, repeated in zip(model(grey), model(grey.repeat(1, 3, 1, 1)), strict=True):
            torch.testing.assert_close(single, repeated, atol=1e-5, rtol=1e-5)
