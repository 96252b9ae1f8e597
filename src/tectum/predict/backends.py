"""What runs the network for `Predictor`: arrays in, arrays out.

Only a backend knows its framework, and imports it when it is made; reading, padding, cropping and colour lie in
`tectum.predict.predictor` and need numpy alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tectum.errors import ConfigError, InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

Float = npt.NDArray[np.float32]


class Raw(NamedTuple):
    """A network's output as arrays: `fused` float32 (B, H, W), not clamped, and `logits` float32 (B, K, H, W)."""

    fused: Float
    logits: Float


class Backend(Protocol):
    """Runs one network.

    Attributes:
        name: what the network calls itself, for messages.
        classes: number of classes K.
        stride: height and width of the input must be multiples of it.
        metadata: what the weights say of themselves (`class_names`, `palette`, ...).
    """

    name: str
    classes: int
    stride: int
    metadata: dict[str, Any]

    def run(self, visible: Float, infrared: Float) -> Raw:
        """Run visible (B, 3, H, W) and infrared (B, 1, H, W), float32 in [0, 1], H and W multiples of `stride`."""


class TorchBackend:
    """Runs a `FusionSegmenter` in PyTorch, in inference mode.

    Args:
        model: a shipped name, a directory or file that `tectum.load` reads, or a network.
        device: a torch device, or "auto": a network handed in stays where it is, a loaded one goes to the GPU where
            there is one.

    A network handed in may be in training: each of its modules gets its own train or eval mode back after every run.
    """

    def __init__(self, model: "str | Path | nn.Module", device: str = "auto") -> None:
        import torch

        if isinstance(model, torch.nn.Module):
            self.model = model
            if device != "auto":
                self.model.to(torch_device(device))
        else:
            from tectum.models import load

            chosen = torch_device(device)  # before the weights are read: a wrong device should not cost a load
            self.model = load(model).to(chosen)
        self.metadata: dict[str, Any] = dict(self.model.metadata)  # type: ignore[arg-type]
        self.name = str(self.metadata.get("name", type(self.model).__name__))
        self.classes = int(self.model.classes)  # type: ignore[arg-type]
        self.stride = int(self.model.stride)  # type: ignore[arg-type]

    def run(self, visible: Float, infrared: Float) -> Raw:
        import torch

        like = next(self.model.parameters(), torch.empty(0))
        with _evaluating(self.model), torch.inference_mode():
            try:
                output = self.model(_tensor(visible, like), _tensor(infrared, like))
            except (torch.cuda.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                count, _, height, width = visible.shape
                raise InputError(
                    f"out of memory on {like.device} for {count} pair(s) of {width}x{height}: "
                    "use a smaller batch, smaller images, or another device"
                ) from None
        return Raw(output.fused[:, 0].float().cpu().numpy(), output.logits.float().cpu().numpy())


def torch_device(name: str) -> "torch.device":
    """The torch device called `name`; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: torch does not know the name, or this machine lacks the device.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)  # a device that torch can spell may still be absent
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(f"device '{name}' is not usable here; use auto, cpu, cuda, cuda:N or mps") from None
    return device


def _tensor(array: Float, like: "torch.Tensor") -> "torch.Tensor":
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(device=like.device, dtype=like.dtype)


@contextmanager
def _evaluating(model: "nn.Module") -> Iterator[None]:
    # Not model.train() afterwards: parts of a network in training may be frozen in eval mode.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _is_out_of_memory(error: Exception) -> bool:
    # torch raises its own class on accelerators and a plain RuntimeError from the CPU's allocator.
    import torch

    return isinstance(error, torch.cuda.OutOfMemoryError) or "can't allocate memory" in str(error)
