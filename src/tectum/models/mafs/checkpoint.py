"""The authors' MAFS checkpoint: its keys as ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tectum.errors import WeightsError
from tectum.models.backbones.resnet import RESNET_DEPTHS, RESNET_WIDTHS
from tectum.models.mafs.network import MAFS
from tectum.models.tensors import depths, fill

# Modules of the authors' MAFS that take no part in any output.
_UNUSED = (
    "encoder.ARM",
    "encoder.SFEB2",
    "encoder.SIM3",
    "encoder.seg_decoder",
    "encoder.to_fused_seg",
    "seg_decoder.intermediate_head",
    "seg_decoder.invpt.norm_mt",
    "seg_decoder.invpt.redu_chan",
    "seg_decoder.pixel_decoder.mask_features",
    "seg_decoder.seg_head.boundary_conv",
    "seg_decoder.seg_head.boundary_conv1",
    "seg_decoder.seg_head.boundary_conv2",
)

# Trees of names: {"theirs": "ours"} for a module or tensor, {"theirs": ("ours", tree)} where the names below it differ.
_Tree = Mapping[str, Any]
_CONV_BN: _Tree = {"conv": "0", "bn": "1"}
_CONV_BNOP: _Tree = {"conv": "0", "bnop": "1"}
_FRELU: _Tree = {"conv_frelu": "convolution", "bn_frelu": "norm"}
_STEM: _Tree = {
    "SFEB1": ("stem_full", {"0": "0", "1": "1", "2": ("2", _FRELU), "3": "3", "4": "4", "5": ("5", _FRELU)}),
    "SFEB2": ("stem_half", {"0": "0", "1": "1", "2": ("2", _FRELU), "3": "3"}),
}
_EXCHANGE: _Tree = {
    "T_c": "temperature",
    "mlp_pool": ("agreement", {"down": "0", "up": "2"}),
    "dwconv": "depthwise",
    "cse": ("recalibration", {"down": "0", "up": "2"}),
    "sse_r.conv1": "visible_score",
    "sse_t.conv1": "infrared_score",
}
_ATTENTION: _Tree = {"conv2": ("reduction", _CONV_BN), "sa.conv1": "spatial", "cam.gamma": "gamma"}
_AFTER_POOLING: _Tree = {"1": "0", "2": "1", "4": "3", "5": "4"}
_ADAPTIVE: _Tree = {
    "RGBobj1_1.basicconv": "visible.0",
    "RGBobj1_2.basicconv": "visible.1",
    "RGBspr.basicconv": "visible.2",
    "Infobj1_1.basicconv": "infrared.0",
    "Infobj1_2.basicconv": "infrared.1",
    "Infspr.basicconv": "infrared.2",
    "obj_fuse.Recalibrate": ("recalibration", _AFTER_POOLING),
    "obj_fuse.channel_agg": "aggregation",
    "obj_fuse.local_att": "local_gate",
    "obj_fuse.global_att": ("global_gate", _AFTER_POOLING),
}
_HETEROGENEOUS: _Tree = {"mlp_shared": "shared", "mlp_gamma.0": "gamma", "mlp_beta": "beta", "bn": "norm"}
_HALF_NORM: _Tree = {"identity": "identity", "conv_1": "first", "norm": "norm", "conv_2": "second"}
_SUBNETWORK: _Tree = {"conv1": ("0", _HALF_NORM), "conv2": ("2", _HALF_NORM)}
_INVERTIBLE: _Tree = {
    "invconv": "mixing",
    "invconv.p": "mixing.permutation",
    "F": ("additive", _SUBNETWORK),
    "G": ("shift", _SUBNETWORK),
    "H": ("scale", _SUBNETWORK),
}
_TRANSFORMER_BLOCK: _Tree = {
    "norm1.body": "norm1",
    "norm2.body": "norm2",
    "attn.temperature": "attention.temperature",
    "attn.qkv": "attention.query_key_value",
    "attn.qkv_dwconv": "attention.depthwise",
    "attn.project_out": "attention.projection",
    "ffn": ("ffn", {"linear1.0": "0", "dwconv.0": "2", "linear2.0": "4"}),
}
_CLASSIFIER: _Tree = {"0": ("convolution", _CONV_BNOP), "2": "prediction"}


def _context(dilations: int) -> _Tree:
    return {f"dilation_conv{i + 1}": (f"dilated.{i}", _CONV_BN) for i in range(dilations)} | {
        "conv1": ("join", _CONV_BN)
    }


_SEGMENTATION_DECODER: _Tree = {
    **{f"pixel_decoder.adapter_{3 - i}": f"pixel_decoder.laterals.{i}.0" for i in range(3)},
    **{f"pixel_decoder.adapter_{3 - i}.norm": f"pixel_decoder.laterals.{i}.1" for i in range(3)},
    **{f"pixel_decoder.layer_{4 - i}": f"pixel_decoder.outputs.{i}.0" for i in range(4)},
    **{f"pixel_decoder.layer_{4 - i}.norm": f"pixel_decoder.outputs.{i}.1" for i in range(4)},
    "aspp.conv0": "atrous_pyramid.pointwise",
    **{f"aspp.conv{i + 1}": f"atrous_pyramid.dilated.{i}" for i in range(4)},
    "aspp.conv": "atrous_pyramid.join",
    "aspp.rconv": "atrous_pyramid.output",
    **{
        f"invpt.invpt_stages.{i + 1}.patch_embed.0.proj": (
            f"transformer.upsampling.{i}",
            {"1": "0.0", "2": "0.1", "4": "1.0", "5": "1.1"},
        )
        for i in range(2)
    },
    **{f"invpt.invpt_stages.{i}.blocks.0": (f"transformer.blocks.{i}", _TRANSFORMER_BLOCK) for i in range(3)},
    "invpt.norm_mts": "transformer.norms",
    "invpt.mt_proj": "transformer.projection",
    **{f"preliminary_decoder.{i}": (f"preliminary.{i}", {"conv": "0", "bn1": "1"}) for i in range(2)},
    "ARM": ("detail_context", _context(4)),
    "seg_head.binary_conv1": ("head.foreground.0", _CONV_BNOP),
    "seg_head.binary_conv2": "head.foreground.1",
    "seg_head.semantic_conv1": ("head.semantic.0", _CONV_BNOP),
    "seg_head.semantic_conv2": "head.semantic.1",
    **{f"arm{3 - i}": (f"refinements.{i}.context", _context(3)) for i in range(3)},
    **{f"arm{3 - i}.high_out": (f"refinements.{i}.projection", _CONV_BN) for i in range(3)},
    **{f"classifier_Z{3 - i}": (f"refinements.{i}.semantic_head", _CLASSIFIER) for i in range(3)},
    **{f"classifier_Z{6 - i}": (f"refinements.{i}.two_class_head", _CLASSIFIER) for i in range(3)},
}
_TREE: _Tree = {
    "encoder.encoder_rgb_conv1": ("visible_encoder", _STEM),
    "encoder.encoder_rgb_bn1": "visible_encoder.stem_half.4",
    **{f"encoder.encoder_rgb_layer{i + 3}": f"visible_encoder.stages.{i}" for i in range(4)},
    "encoder.encoder_thermal_conv1": ("infrared_encoder", _STEM),
    "encoder.encoder_thermal_bn1": "infrared_encoder.stem_half.4",
    **{f"encoder.encoder_thermal_layer{i + 3}": f"infrared_encoder.stages.{i}" for i in range(4)},
    **{f"encoder.EAEF{i + 2}": (f"exchanges.{i}", _EXCHANGE) for i in range(4)},
    "encoder.low_fuse3": ("attentions.0", _ATTENTION),
    **{f"encoder.high_fuse{i + 3}": (f"attentions.{i}", _ATTENTION) for i in (1, 2, 3)},
    "encoder.low_fuse1": ("adaptive_full", _ADAPTIVE),
    "encoder.low_fuse2": ("adaptive_half", _ADAPTIVE),
    "encoder.SIM1": ("heterogeneous_half", _HETEROGENEOUS),
    "encoder.SIM2": ("heterogeneous_full", _HETEROGENEOUS),
    **{
        f"encoder.rec_decoder.block{i + 1}": (f"refinement.blocks.{i}", {"0.conv": "0", "0.bn": "1", "1": "2"})
        for i in range(4)
    },
    **{f"fuse_decoder.fuse_decoder.operations.{i}": (f"fusion_decoder.blocks.{i}", _INVERTIBLE) for i in range(5)},
    "fuse_decoder.fuse_decoder.fuse": "fusion_decoder.fuse",
    "fuse_decoder.conv_block.0": "fusion_decoder.prediction",
    "seg_decoder": ("segmentation_decoder", _SEGMENTATION_DECODER),
}


def load_mafs(tensors: Mapping[str, Tensor], path: str | Path) -> MAFS:
    """The authors' MAFS checkpoint as a network of ours; size and classes are read off the tensors.

    Args:
        tensors: what `read_tensors` made of the file.
        path: where they come from, for messages.

    Raises:
        WeightsError: when a key is left over or missing, or a shape does not fit.
    """
    try:
        width = tensors["encoder.low_fuse3.conv2.conv.weight"].shape[1]
        classes = tensors["seg_decoder.seg_head.semantic_conv2.weight"].shape[0]
    except KeyError as error:
        raise WeightsError(f"'{path}' is no complete MAFS checkpoint: it has no tensor {error}") from None
    found = depths(tensors, "encoder.encoder_rgb_layer{}.", range(3, 7))
    sizes = [name for name, depth in RESNET_DEPTHS.items() if depth == found and RESNET_WIDTHS[name][0] == width]
    if not sizes:
        raise WeightsError(f"'{path}' has encoders of first width {width} and depths {found}, which is no ResNet here")
    model = MAFS(f"mafs_{sizes[0]}", classes=classes, backbone=sizes[0], gate="first")
    names = _flat(_TREE)
    renamed = {
        _rename(key, names): value
        for key, value in tensors.items()
        if not any(key.startswith(f"{unused}.") for unused in _UNUSED)
    }
    fill(model, renamed, path)
    return model


def _flat(tree: _Tree, theirs: str = "", ours: str = "") -> dict[str, str]:
    """Full names of a tree: {"a": ("x", {"b": "y"})} -> {"a.b": "x.y"}."""
    names: dict[str, str] = {}
    for name, target in tree.items():
        if isinstance(target, tuple):
            names |= _flat(target[1], f"{theirs}{name}.", f"{ours}{target[0]}.")
        else:
            names[f"{theirs}{name}"] = f"{ours}{target}"
    return names


def _rename(key: str, names: Mapping[str, str]) -> str:
    """The longest start of the dotted `key` that is in `names` is replaced; an unknown key is returned as it is."""
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        start = ".".join(parts[:end])
        if start in names:
            return ".".join((names[start], *parts[end:]))
    return key
