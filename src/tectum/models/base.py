"""What every network of tectum has in common: its contract, its checks, and how it is saved.

A saved model is a directory of `model.safetensors`, `config.json` (architecture, constructor keywords, metadata) and,
for shipped weights, a card `README.md`. Nothing in it is executed on loading.
"""

import copy
import json
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from tectum.arrays import luma
from tectum.errors import InputError
from tectum.files import write_bytes, write_text
from tectum.weights import CONFIG_FILE, WEIGHTS_FILE


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
    return luma(*visible.split(1, dim=1))


Role = Literal["backbone", "fusion", "segmentation", "pretraining"]
"""What parameters of a network are for; "pretraining" is all that masked pretraining trains."""


class Deployed(nn.Module):
    """A trained network folded for inference, made by `FusionSegmenter.deploy()`.

    It computes what the trained one computes in eval mode, up to rounding, and shares no memory with it. It has no
    train mode: there is no dropout and no batch norm in it. So that it can be traced and exported for any batch, height
    and width, it does not check its inputs.

    Attributes:
        architecture, arguments, classes, stride, metadata, unquantised_modules, runs_in_bands, bytes_per_pixel: of the
            trained network, see `FusionSegmenter`.

    Shape:
        visible (B, 3, H, W) and infrared (B, 1, H, W) in [0, 1], H and W multiples of `stride` -> fused (B, 1, H, W),
        about [0, 1] and not clamped, and logits (B, K, H, W); all float32.
    """

    def __init__(self, model: "FusionSegmenter") -> None:
        super().__init__()
        self.architecture = model.architecture
        self.arguments: dict[str, Any] = copy.deepcopy(model.arguments)
        self.classes = model.classes
        self.stride = model.stride
        self.metadata: dict[str, Any] = copy.deepcopy(model.metadata)
        self.unquantised_modules = model.unquantised_modules
        self.runs_in_bands = model.runs_in_bands
        self.bytes_per_pixel = dict(model.bytes_per_pixel)

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def deploy(self) -> "Deployed":
        """This network itself, so that whoever holds either form may ask."""
        return self

    def bands(self, visible: Tensor, infrared: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What `forward` gives, up to rounding, in bands from top to bottom, and in a fraction of its memory.

        Only where `runs_in_bands` says so.

        Args:
            visible, infrared: as in `forward`.
            rows: height of a band, and of what is worked on at a time before, in pixels; a multiple of `stride`.

        Yields:
            fused (B, 1, h, W) and logits (B, K, h, W), where h is `rows`, or what is left for the last band.
        """
        raise NotImplementedError


class FusionSegmenter(nn.Module):
    """Base of the networks that fuse and segment in one pass, and what each of them declares to the other rooms.

    Class attributes, declared by each family:
        family: first part of the architectures' names, "virmfs" for example. A recipe trains one family.
        roles: submodules by role, as dotted paths; one that is None in a network takes no part.
        exact_modules: submodules whose tensors stay float32 in a float16 file.
        unquantised_modules: submodules, by the names that they have in the folded form too, that stay in floating
            point in an INT8 file.
        restart_keywords: constructor keywords with which weights of another value can be started from; the layers that
            depend on them start anew.
        runs_in_bands: whether the folded form has `Deployed.bands`.
        bytes_per_pixel: memory of a run per input pixel, by engine ("torch", "openvino", and "bands" for a run in bands
            in torch), as benchmarks/memory.py measures it for the presets that need most, rounded up. What is absent is
            not known.

    Attributes:
        architecture: name under which `create_model` builds it, "virmfs_b0" for example.
        arguments: the constructor keywords, all of them: with `architecture` they rebuild the network.
        classes: number of classes K.
        stride: height and width of the input must be multiples of it.
        metadata: what the weights mean: "name", "class_names", "palette" (RGB 0..255 per class), and free entries.
    """

    family: ClassVar[str]
    roles: ClassVar[Mapping[Role, tuple[str, ...]]]
    exact_modules: ClassVar[tuple[str, ...]] = ()
    unquantised_modules: ClassVar[tuple[str, ...]] = ()
    restart_keywords: ClassVar[tuple[str, ...]] = ("classes",)
    runs_in_bands: ClassVar[bool] = False
    bytes_per_pixel: ClassVar[Mapping[str, int]] = {}
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

    def role(self, role: Role) -> dict[str, nn.Parameter]:
        """The parameters of a role by their names, in the order of `named_parameters`.

        Raises:
            ValueError: the role, or one of its submodules, has no parameters: a module was renamed, or is not declared.
        """
        modules = self.role_modules(role)
        for path, module in modules.items():
            if next(module.parameters(), None) is None:
                raise ValueError(f"'{path}', of the role {role} of {self.architecture}, has no parameters")
        starts = tuple(f"{path}." for path in modules)
        return {name: parameter for name, parameter in self.named_parameters() if name.startswith(starts)}

    def role_modules(self, role: Role) -> dict[str, nn.Module]:
        """The submodules of a role by their paths, but for those that are None.

        Raises:
            ValueError: the role has none, or a path that the family declares does not exist.
        """
        found = {}
        for path in self.roles[role]:
            try:
                module = attrgetter(path)(self)
            except AttributeError:
                raise ValueError(
                    f"{self.architecture} has no '{path}', which it declares for the role {role}"
                ) from None
            if module is not None:
                found[path] = module
        if not found:
            raise ValueError(f"the role {role} of {self.architecture} is empty")
        return found

    def departures(self) -> list[str]:
        """How this network departs from the published one, a clause each; empty for the published form."""
        raise NotImplementedError

    def deploy(self) -> Deployed:
        """This network folded for inference: a new module, on the same device, which computes the same with less work.

        It equals this network in eval mode up to rounding, maps (visible, infrared) to (fused, logits), has no train
        mode, and shares no memory with this network, which stays as it is.
        """
        return self._folded().eval().requires_grad_(False)

    def _folded(self) -> Deployed:
        raise NotImplementedError

    def save(self, directory: str | Path, dtype: torch.dtype = torch.float32, card: str | None = None) -> None:
        """Write weights and config to `directory`, so that `tectum.load(directory)` gives this network again.

        Args:
            directory: made if absent; files of the same name are replaced, each atomically.
            dtype: float32, or float16 for half the size (loading gives float32 again). Vectors and `exact_modules`
                are float32 in any case.
            card: text of the card `README.md`; None leaves a card that is there as it is.
        """
        directory = Path(directory)
        exact_modules = tuple(f"{path}." for path in self.exact_modules)
        tensors = {}
        for key, value in self.state_dict().items():
            # Vectors are exact, since running variances exceed the range of float16.
            exact = not value.is_floating_point() or value.ndim <= 1 or key.startswith(exact_modules)
            tensors[key] = value.detach().to("cpu", value.dtype if exact else dtype).contiguous()
        # Not save_file, which leaves a file that only its owner can read.
        write_bytes(directory / WEIGHTS_FILE, save(tensors))
        config = {"architecture": self.architecture, "arguments": self.arguments, "metadata": self.metadata}
        write_text(directory / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
        if card is not None:
            write_text(directory / "README.md", card)
