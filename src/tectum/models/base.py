"""What every network of tectum has in common: its contract, its checks, and how it is saved.

A saved model is a directory of `model.safetensors`, `config.json` (architecture, constructor keywords, metadata) and,
for shipped weights, a card `README.md`. Nothing in it is executed on loading.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from tectum.errors import InputError
from tectum.files import write_bytes, write_text

if TYPE_CHECKING:
    from tectum.models.deploy import Deployed

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class Output(NamedTuple):
    """What a network returns.

    Attributes:
        fused: (B, 1, H, W) fused luminance. About [0, 1], not clamped: clamp before saving.
        logits: (B, K, H, W) segmentation scores; `labels` are their argmax over K.
        aux: further outputs that only training uses, by name.
    """

    fused: Tensor
    logits: Tensor
    aux: dict[str, Tensor]


def luminance(visible: Tensor) -> Tensor:
    """BT.601 luma of an RGB image: (B, 3, H, W) in [0, 1] -> (B, 1, H, W) in [0, 1]."""
    red, green, blue = visible.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


class FusionSegmenter(nn.Module):
    """Base of the networks that fuse and segment in one pass.

    Attributes:
        architecture: name under which `create_model` builds it, "virmfs_b0" for example.
        arguments: the constructor keywords, all of them: with `architecture` they rebuild the network.
        classes: number of classes K.
        stride: height and width of the input must be multiples of it.
        metadata: what the weights mean: "name", "class_names", "palette" (RGB 0..255 per class), and free entries.
    """

    stride = 32

    def __init__(self, architecture: str, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.architecture = architecture
        self.arguments = arguments
        self.classes: int = arguments["classes"]
        self.metadata: dict[str, Any] = {"name": architecture}

    def check_inputs(self, visible: Tensor, infrared: Tensor) -> None:
        """Raise InputError unless visible is (B, 3, H, W), infrared (B, 1, H, W), and H, W multiples of `stride`."""
        expected = (visible.shape[0], 1, *visible.shape[2:])
        if visible.ndim != 4 or visible.shape[1] != 3 or tuple(infrared.shape) != expected:
            raise InputError(
                "visible must be (B, 3, H, W) and infrared (B, 1, H, W) of the same size, "
                f"but they are {tuple(visible.shape)} and {tuple(infrared.shape)}"
            )
        height, width = visible.shape[2:]
        padded = tuple(max(1, -(-side // self.stride)) * self.stride for side in (height, width))
        if padded != (height, width):
            raise InputError(
                f"height and width must be multiples of {self.stride}, but they are {(height, width)}: "
                f"pad to {padded} and crop the result, or use tectum.Predictor, which does both"
            )

    def deploy(self) -> "Deployed":
        """This network folded for inference: a new module, on the same device, which computes the same with less work.

        It equals this network in eval mode up to rounding, maps (visible, infrared) to (fused, logits), has no train
        mode, and shares no memory with this network, which stays as it is. See `tectum.models.deploy`.
        """
        from tectum.models.deploy import deploy  # imports the networks, which import this module

        return deploy(self)

    def save(self, directory: str | Path, dtype: torch.dtype = torch.float32, card: str | None = None) -> None:
        """Write weights and config to `directory`, so that `tectum.load(directory)` gives this network again.

        Args:
            directory: made if absent; files of the same name are replaced, each atomically.
            dtype: float32, or float16 for half the size (loading gives float32 again). Vectors and the selection
                are float32 in any case.
            card: text of the card `README.md`; None leaves a card that is there as it is.
        """
        directory = Path(directory)
        tensors = {}
        for key, value in self.state_dict().items():
            # Vectors, since running variances exceed the range of float16. The selection, whose choice is steep.
            exact = not value.is_floating_point() or value.ndim <= 1 or key.startswith("selection.")
            tensors[key] = value.detach().to("cpu", value.dtype if exact else dtype).contiguous()
        # Not save_file, which leaves a file that only its owner can read.
        write_bytes(directory / WEIGHTS_FILE, save(tensors))
        config = {"architecture": self.architecture, "arguments": self.arguments, "metadata": self.metadata}
        write_text(directory / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
        if card is not None:
            write_text(directory / "README.md", card)
