"""NVIDIA's MiT weights, in the layout of Hugging Face, as a backbone file of ours. They are for non-commercial use."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from tectum.errors import WeightsError
from tectum.files import write_bytes
from tectum.models.backbones.mit import MIT_SIZES, MixVisionTransformer
from tectum.models.tensors import fill, read_tensors, rename

_RULES = [
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
            renamed[rename(stem, _RULES, one_based=False)] = value
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
