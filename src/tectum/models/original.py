"""Weights that others published: the authors' checkpoints, and backbones in the layout of Hugging Face.

Each kind has one table from its keys to ours. A key that the table does not know, or a tensor of ours that nothing
fills, is an error that names it. Files are read without executing anything in them (`weights_only=True`, safetensors).
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from tectum.errors import ConfigError, WeightsError
from tectum.files import write_bytes
from tectum.models.backbones.mit import MIT_SIZES, MixVisionTransformer
from tectum.models.backbones.resnet import RESNET_DEPTHS, RESNET_WIDTHS
from tectum.models.mafs import MAFS
from tectum.models.virmfs import PRESETS, ViRMFS

# Filter banks that the authors store with their weights; the slicing transform needs none.
_VIRMFS_IGNORED = re.compile(r"f[012]\.(wt|iwt)_filter")

_VIRMFS_RULES = [
    (r"backbone\.patch_embed(\d)\.proj\.", r"backbone.stages.{0}.embedding.projection."),
    (r"backbone\.patch_embed(\d)\.norm\.", r"backbone.stages.{0}.embedding.norm."),
    (r"backbone\.norm(\d)\.", r"backbone.stages.{0}.norm."),
    (r"backbone\.block(\d)\.(\d+)\.(norm[12])\.", r"backbone.stages.{0}.blocks.{1}.{2}."),
    (r"backbone\.block(\d)\.(\d+)\.attn\.q\.", r"backbone.stages.{0}.blocks.{1}.attention.query."),
    (r"backbone\.block(\d)\.(\d+)\.attn\.kv\.", r"backbone.stages.{0}.blocks.{1}.attention.key_value."),
    (r"backbone\.block(\d)\.(\d+)\.attn\.proj\.", r"backbone.stages.{0}.blocks.{1}.attention.projection."),
    (r"backbone\.block(\d)\.(\d+)\.attn\.sr\.", r"backbone.stages.{0}.blocks.{1}.attention.reduction."),
    (r"backbone\.block(\d)\.(\d+)\.attn\.norm\.", r"backbone.stages.{0}.blocks.{1}.attention.reduction_norm."),
    (r"backbone\.block(\d)\.(\d+)\.mlp\.fc1\.", r"backbone.stages.{0}.blocks.{1}.ffn.expand."),
    (r"backbone\.block(\d)\.(\d+)\.mlp\.dwconv\.dwconv\.", r"backbone.stages.{0}.blocks.{1}.ffn.depthwise."),
    (r"backbone\.block(\d)\.(\d+)\.mlp\.fc2\.", r"backbone.stages.{0}.blocks.{1}.ffn.contract."),
    (r"(decode|fusion)_head\.linear_c(\d)\.proj\.", r"{0}_head.linears.{1}."),
    (r"(decode|fusion)_head\.linear_fuse\.conv\.", r"{0}_head.fuse."),
    (r"(decode|fusion)_head\.linear_fuse\.bn\.", r"{0}_head.norm."),
    (r"(decode|fusion)_head\.linear_pred\.", r"{0}_head.prediction."),
    (r"f([012])\.base_conv\.", r"fusions.{0}.base_convolution."),
    (r"f([012])\.base_scale\.", r"fusions.{0}.base_scale."),
    (r"f([012])\.wavelet_convs\.(\d)\.", r"fusions.{0}.levels.{1}.convolution."),
    (r"f([012])\.wavelet_scale\.(\d)\.", r"fusions.{0}.levels.{1}.scale."),
    (r"f([012])\.fusion\.attention\.([013])\.", r"fusions.{0}.levels.0.gate.gates.{1}."),
    (r"f([012])\.fusion\.final_conv\.", r"fusions.{0}.levels.0.gate.projection."),
    (r"f3\.", r"deepest_fusion."),
]
# Groups of these patterns count from one; ours count from zero.
_ONE_BASED = re.compile(r"backbone\.(patch_embed|norm|block)|(decode|fusion)_head\.linear_c")

_HUGGING_FACE_MIT_RULES = [
    (r"patch_embeddings\.(\d)\.proj\.", r"stages.{0}.embedding.projection."),
    (r"patch_embeddings\.(\d)\.layer_norm\.", r"stages.{0}.embedding.norm."),
    (r"layer_norm\.(\d)\.", r"stages.{0}.norm."),
    (r"block\.(\d)\.(\d+)\.layer_norm_([12])\.", r"stages.{0}.blocks.{1}.norm{2}."),
    (r"block\.(\d)\.(\d+)\.attention\.self\.(query|key|value)\.", r"stages.{0}.blocks.{1}.attention.{2}."),
    (r"block\.(\d)\.(\d+)\.attention\.output\.dense\.", r"stages.{0}.blocks.{1}.attention.projection."),
    (r"block\.(\d)\.(\d+)\.attention\.self\.sr\.", r"stages.{0}.blocks.{1}.attention.reduction."),
    (r"block\.(\d)\.(\d+)\.attention\.self\.layer_norm\.", r"stages.{0}.blocks.{1}.attention.reduction_norm."),
    (r"block\.(\d)\.(\d+)\.mlp\.dense1\.", r"stages.{0}.blocks.{1}.ffn.expand."),
    (r"block\.(\d)\.(\d+)\.mlp\.dwconv\.dwconv\.", r"stages.{0}.blocks.{1}.ffn.depthwise."),
    (r"block\.(\d)\.(\d+)\.mlp\.dense2\.", r"stages.{0}.blocks.{1}.ffn.contract."),
]

# Modules of the authors' MAFS that take no part in any output.
_MAFS_UNUSED = (
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
_MAFS_TREE: _Tree = {
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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file, or of a `.pth`, `.pt` or `.bin` file read with `weights_only=True`.

    A dictionary that holds the tensors one level down (`state_dict`, `model`) and the prefix `module.` of data-parallel
    training are unwrapped.

    Raises:
        WeightsError: for a file that is missing, damaged, holds no tensors, or would need pickle to execute code.
    """
    try:
        content: Any
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"there is no weights file '{path}'") from None
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"'{path}' is damaged, or holds Python objects beside its tensors, which tectum never executes: "
            "re-save its state_dict alone with torch.save"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        raise WeightsError(f"'{path}' cannot be read as weights ({error}): fetch it again") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"'{path}' holds no dictionary of tensors: re-save the network's state_dict with torch.save")
    return {key.removeprefix("module."): value for key, value in content.items()}


def load_virmfs(tensors: Mapping[str, Tensor], path: str | Path, wiring: str | None) -> ViRMFS:
    """The authors' ViR-MFS checkpoint as a network of ours; size and classes are read off the tensors.

    Args:
        tensors: what `read_tensors` made of the file.
        path: where they come from, for messages.
        wiring: "asymmetric" or "symmetric". The file does not say which one it was trained with, and the tensors fit
            both, so it must be given.

    Raises:
        ConfigError: without a wiring.
        WeightsError: when a key is left over or missing, or a shape does not fit.
    """
    try:
        width = tensors["backbone.patch_embed1.proj.weight"].shape[0]
        classes = tensors["decode_head.linear_pred.weight"].shape[0]
    except KeyError as error:
        raise WeightsError(f"'{path}' is no ViR-MFS checkpoint, nor one of MAFS: it has no tensor {error}") from None
    depths = _depths(tensors, "backbone.block{}.", range(1, 5))
    sizes = [name for name, size in MIT_SIZES.items() if size.widths[0] == width and size.depths == depths]
    if not sizes:
        raise WeightsError(
            f"'{path}' has a backbone of first width {width} and depths {depths}, which is no MiT b0 to b5"
        )
    if wiring is None:
        likely = PRESETS[f"virmfs_{sizes[0]}"]["wiring"]
        raise ConfigError(
            f"'{path}' does not say how it is wired: pass wiring='asymmetric' or wiring='symmetric' "
            f"(for {sizes[0]} most likely '{likely}'), "
            "and for the command line save it once: tectum.load(FILE, wiring=...).save(DIR)"
        )
    model = ViRMFS(f"virmfs_{sizes[0]}", classes=classes, backbone=sizes[0], wiring=wiring)  # type: ignore[arg-type]
    kept = {key: value for key, value in tensors.items() if not _VIRMFS_IGNORED.fullmatch(key)}
    renamed = {_rename_virmfs(key): value for key, value in kept.items()}
    fill(model, renamed, path)
    return model


def _depths(tensors: Mapping[str, Tensor], prefix: str, stages: range) -> tuple[int, ...]:
    """Number of blocks of each stage, whose keys begin with `prefix` filled in, followed by the block's number."""
    return tuple(
        len({key.split(".")[2] for key in tensors if key.startswith(prefix.format(stage))}) for stage in stages
    )


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
    depths = _depths(tensors, "encoder.encoder_rgb_layer{}.", range(3, 7))
    sizes = [name for name, depth in RESNET_DEPTHS.items() if depth == depths and RESNET_WIDTHS[name][0] == width]
    if not sizes:
        raise WeightsError(f"'{path}' has encoders of first width {width} and depths {depths}, which is no ResNet here")
    model = MAFS(f"mafs_{sizes[0]}", classes=classes, backbone=sizes[0], gate="first")
    names = _flat(_MAFS_TREE)
    renamed = {
        _rename_path(key, names): value
        for key, value in tensors.items()
        if not any(key.startswith(f"{unused}.") for unused in _MAFS_UNUSED)
    }
    fill(model, renamed, path)
    return model


def load_original(path: str | Path, wiring: str | None) -> ViRMFS | MAFS:
    """An authors' checkpoint, ViR-MFS or MAFS by its keys, as a network of ours.

    Args:
        path: `.pth` file with the keys of the release, with or without `module.`.
        wiring: "asymmetric" or "symmetric" for ViR-MFS, whose files do not say it; None for MAFS, which has none.

    Raises:
        ConfigError: for ViR-MFS without a wiring, or MAFS with one.
        WeightsError: for a file that is neither, or does not fit.
    """
    path = Path(path)
    tensors = read_tensors(path)
    if not any(key.startswith("encoder.encoder_rgb_") for key in tensors):
        return load_virmfs(tensors, path, wiring)
    if wiring is not None:
        raise ConfigError(f"'{path}' is a MAFS checkpoint, which has no wiring: leave out wiring={wiring!r}")
    return load_mafs(tensors, path)


def _flat(tree: _Tree, theirs: str = "", ours: str = "") -> dict[str, str]:
    """Full names of a tree: {"a": ("x", {"b": "y"})} -> {"a.b": "x.y"}."""
    names: dict[str, str] = {}
    for name, target in tree.items():
        if isinstance(target, tuple):
            names |= _flat(target[1], f"{theirs}{name}.", f"{ours}{target[0]}.")
        else:
            names[f"{theirs}{name}"] = f"{ours}{target}"
    return names


def _rename_path(key: str, names: Mapping[str, str]) -> str:
    """The longest start of the dotted `key` that is in `names` is replaced; an unknown key is returned as it is."""
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        start = ".".join(parts[:end])
        if start in names:
            return ".".join((names[start], *parts[end:]))
    return key


def _rename_virmfs(key: str) -> str:
    name = _rename(key, _VIRMFS_RULES, one_based=bool(_ONE_BASED.match(key)))
    return name.replace("decode_head.", "segmentation_head.", 1)


def _rename(key: str, rules: list[tuple[str, str]], one_based: bool) -> str:
    """The first rule whose pattern starts `key` replaces that start; an unknown key is returned as it is."""
    for pattern, template in rules:
        match = re.match(pattern, key)
        if match:
            groups = list(match.groups())
            if one_based:
                # Only the stage counts from one: the first group that is a number.
                at = next(i for i, group in enumerate(groups) if group.isdigit())
                groups[at] = str(int(groups[at]) - 1)
            return template.format(*groups) + key[match.end() :]
    return key


def fill(model: torch.nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Load `tensors` into `model`; nothing may be left over or missing, and every shape must fit.

    Raises:
        WeightsError: naming the keys and `source`.
    """
    expected = model.state_dict()
    problems = []
    for title, keys in (("left over", tensors.keys() - expected.keys()), ("missing", expected.keys() - tensors.keys())):
        if keys:
            problems.append(f"{title}: {', '.join(sorted(keys)[:8])}{' ...' if len(keys) > 8 else ''}")
    problems += [
        f"{key} is {tuple(tensors[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    if problems:
        raise WeightsError(f"the weights in '{source}' do not fit {type(model).__name__}: {'; '.join(problems[:8])}")
    model.load_state_dict(dict(tensors))


def convert_mit(source: str | Path, out: str | Path) -> str:
    """Turn a local copy of a Hugging Face MiT (`nvidia/mit-b0` to `-b5`) into a backbone file of ours.

    Args:
        source: its folder, or the `model.safetensors` or `pytorch_model.bin` in it.
        out: safetensors file to write, for `model.backbone_weights` of a training config.

    Returns:
        The size found, "b0" to "b5".

    Raises:
        WeightsError: when it is no MiT, or a key is left over.
    """
    path = Path(source)
    if path.is_dir():
        names = ("model.safetensors", "pytorch_model.bin")
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise WeightsError(f"'{path}' holds neither {' nor '.join(names)}: point to a full copy of nvidia/mit-b*")
        path = found[0]
    renamed: dict[str, Tensor] = {}
    for key, value in read_tensors(path).items():
        if not key.startswith(("classifier.", "decode_head.")):
            stem = key.removeprefix("segformer.").removeprefix("encoder.")
            renamed[_rename(stem, _HUGGING_FACE_MIT_RULES, one_based=False)] = value
    for key in [key for key in renamed if ".attention.key." in key]:
        value_key = key.replace(".key.", ".value.")
        if value_key in renamed:
            joined = torch.cat((renamed.pop(key), renamed.pop(value_key)))
            renamed[key.replace(".key.", ".key_value.")] = joined
    size = _mit_size(renamed, path)
    model = MixVisionTransformer(size)
    fill(model, renamed, path)
    write_bytes(out, save(model.state_dict(), metadata={"size": size}))
    return size


def _mit_size(tensors: Mapping[str, Tensor], path: Path) -> str:
    embedding = tensors.get("stages.0.embedding.projection.weight")
    if embedding is None:
        raise WeightsError(f"'{path}' is no MixVisionTransformer: it has no first patch embedding")
    depths = tuple(
        len({key.split(".")[3] for key in tensors if key.startswith(f"stages.{stage}.blocks.")}) for stage in range(4)
    )
    for name, size in MIT_SIZES.items():
        if size.depths == depths and size.widths[0] == embedding.shape[0]:
            return name
    raise WeightsError(
        f"'{path}' has a first width of {embedding.shape[0]} and depths {depths}, which is no MiT b0 to b5"
    )


def load_backbone(backbone: torch.nn.Module, path: str | Path) -> None:
    """Fill `backbone` from a file that `convert_mit` wrote.

    Raises:
        WeightsError: when the file does not fit.
    """
    fill(backbone, read_tensors(Path(path)), path)
