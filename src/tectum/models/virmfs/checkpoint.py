"""The authors' ViR-MFS checkpoints: their keys as ours."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from tectum.errors import ConfigError, WeightsError
from tectum.models.backbones.mit import MIT_SIZES
from tectum.models.tensors import depths, fill, rename
from tectum.models.virmfs.network import PRESETS, ViRMFS

# Filter banks that the authors store with their weights; the slicing transform needs none.
_IGNORED = re.compile(r"f[012]\.(wt|iwt)_filter")

_RULES = [
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
    found = depths(tensors, "backbone.block{}.", range(1, 5))
    sizes = [name for name, size in MIT_SIZES.items() if size.widths[0] == width and size.depths == found]
    if not sizes:
        raise WeightsError(
            f"'{path}' has a backbone of first width {width} and depths {found}, which is no MiT b0 to b5"
        )
    if wiring is None:
        likely = PRESETS[f"virmfs_{sizes[0]}"]["wiring"]
        raise ConfigError(
            f"'{path}' does not say how it is wired: pass wiring='asymmetric' or wiring='symmetric' "
            f"(for {sizes[0]} most likely '{likely}'), "
            "and for the command line save it once: tectum.load(FILE, wiring=...).save(DIR)"
        )
    model = ViRMFS(f"virmfs_{sizes[0]}", classes=classes, backbone=sizes[0], wiring=wiring)  # type: ignore[arg-type]
    kept = {key: value for key, value in tensors.items() if not _IGNORED.fullmatch(key)}
    renamed = {_rename(key): value for key, value in kept.items()}
    fill(model, renamed, path)
    return model


def _rename(key: str) -> str:
    name = rename(key, _RULES, one_based=bool(_ONE_BASED.match(key)))
    return name.replace("decode_head.", "segmentation_head.", 1)
