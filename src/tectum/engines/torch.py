"""PyTorch, eager or compiled, on any of its devices."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import chain
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from tectum.arrays import Float
from tectum.engines.base import Bands, Raw, memory_errors, reason
from tectum.errors import ConfigError


class TorchEngine:
    """Runs a network of tectum, as it was trained or folded, in inference mode, on the device where it is.

    A network may be in training: each of its modules gets its own train or eval mode back when nobody runs it any more.
    Large images run in bands where the network declares that it can (`runs_in_bands`); it is folded for them if it is
    not yet.

    Args:
        model: maps visible, infrared to fused, logits and whatever else, and has `metadata`, `classes` and `stride`.
        compiled: through `torch.compile`, one call at a time.
    """

    def __init__(self, model: nn.Module, *, compiled: bool = False) -> None:
        network: Any = model
        self.model = network
        self.runtime = "compile" if compiled else "torch"
        self.metadata: dict[str, Any] = dict(network.metadata)
        if isinstance(architecture := getattr(model, "architecture", None), str):
            self.metadata["architecture"] = architecture
        self.name = str(self.metadata.get("name", type(model).__name__))
        self.classes = int(network.classes)
        self.stride = int(network.stride)
        self.bytes_per_pixel: Mapping[str, int] = dict(getattr(model, "bytes_per_pixel", {}))
        self._call: Any = torch.compile(model) if compiled else model
        self._one_at_a_time: Any = Lock() if compiled else nullcontext()

    def run(self, visible: Float, infrared: Float) -> Raw:
        like = self._like()
        with (
            _evaluating(self.model),
            self._one_at_a_time,
            torch.inference_mode(),
            self._failures(visible, like.device),
        ):
            return _raw(*self._call(_tensor(visible, like), _tensor(infrared, like))[:2])

    @property
    def bands(self) -> Bands | None:
        return self._bands if getattr(self.model, "runs_in_bands", False) else None

    def _bands(self, visible: Float, infrared: Float, rows: int) -> Iterator[Raw]:
        like = self._like()
        with self._failures(visible, like.device):
            network = self.model.deploy().to(like)
            for fused, logits in network.bands(_tensor(visible, like), _tensor(infrared, like), rows):
                yield _raw(fused, logits)

    def _like(self) -> torch.Tensor:
        """A tensor of the device and type that the network computes with."""
        return next(chain(self.model.parameters(), self.model.buffers()), torch.empty(0))

    @contextmanager
    def _failures(self, visible: Float, device: torch.device) -> Iterator[None]:
        """Raise errors of torch that are the machine's as those of `run`."""
        try:
            with memory_errors(str(device), visible):
                yield
        except RuntimeError as error:
            if self.runtime == "compile" and isinstance(error, torch._dynamo.exc.TorchDynamoException):
                cause = getattr(error, "inner_exception", error)
                raise ConfigError(
                    f"torch.compile does not work here ({reason(cause, line=0)}); use the backend torch"
                ) from None
            raise


def torch_device(name: str) -> torch.device:
    """The torch device called `name`; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: torch does not know the name, or this machine lacks the device.
    """
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


def _raw(fused: torch.Tensor, logits: torch.Tensor) -> Raw:
    return Raw(fused[:, 0].float().cpu().numpy(), logits.float().cpu().numpy())


def _tensor(array: Float, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device=like.device, dtype=like.dtype)


class _EvalMode:
    """Modules in eval mode while somebody runs them."""

    def __init__(self) -> None:
        self.users = 0
        self.modes: list[tuple[nn.Module, bool]] = []


_eval_modes: WeakKeyDictionary[nn.Module, _EvalMode] = WeakKeyDictionary()
_eval_lock = Lock()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Have `model` in eval mode; the last of those who run it at the same time gives all modules their modes back."""
    with _eval_lock:
        mode = _eval_modes.setdefault(model, _EvalMode())
        if mode.users == 0:
            # Not model.train() afterwards: parts of a network in training may be frozen in eval mode.
            mode.modes = [(module, module.training) for module in model.modules()]
            model.eval()
        mode.users += 1
    try:
        yield
    finally:
        with _eval_lock:
            mode.users -= 1
            if mode.users == 0:
                for module, training in mode.modes:
                    module.training = training
                mode.modes = []  # they would keep the network alive
