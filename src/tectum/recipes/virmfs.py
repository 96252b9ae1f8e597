"""The `virmfs` recipe: joint training of fusion and segmentation with alternating meta-learning steps.

As the released training code of ViR-MFS does it. Every batch gets a full step, in some epochs a second-order meta step
on one branch, and a second full step on the same batch:

    L_f = 50 mean|∇f - max(∇v, ∇i)| + 20 mean|f - max(v, i)|,   L = L_f + cross-entropy
    meta step on a branch with parameters θ:   θ' = θ - α ∇L_support(θ),   θ ← Adam(∇_θ L_query(θ'))

The support is the first half of the batch and the query the second half (of a batch of one, the same pair). The fusion
branch is the wavelet fusion modules and the fusion head, with L_f; the segmentation branch is the segmentation head,
with the cross-entropy. The backbone is not touched by meta steps: its features are computed once, without a graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Adam

from tectum.data.datasets import DatasetInfo
from tectum.data.transforms import Sample
from tectum.losses.fusion import (
    detailed_intensity_loss,
    directional_gradient_loss,
    gradient_loss,
    intensity_loss,
    saliency_mask,
)
from tectum.losses.picture import PictureLoss
from tectum.losses.segmentation import box_sum, cross_entropy, cross_entropy_sum, lovasz_softmax_sum
from tectum.models.backbones.mit_weights import load_backbone
from tectum.models.base import Role, luminance
from tectum.models.virmfs import ViRMFS
from tectum.recipes import loop
from tectum.recipes.config import (
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    Precision,
    ScoredRunConfig,
    SelfTrainingConfig,
)
from tectum.recipes.networks import class_weights, create_network, make_labeller
from tectum.recipes.processes import autocast, average_gradients, mean_over_processes, place
from tectum.section import Section

Branch = Literal["fusion", "segmentation"]


class VirmfsModelConfig(ModelConfig):
    """Network.

    Attributes:
        backbone_weights: a file written by `tectum models convert`, to start from.
    """

    name: str = "virmfs_b0"
    backbone_weights: Path | None = None


class LossConfig(Section):
    """Weights of the loss terms, and of the classes in the cross-entropy (None: 1 each).

    Attributes:
        lovasz: of the Lovász-softmax loss, next to the cross-entropy.
        boxes: of `box_sum`, for sources with `boxes`.
        target: of the intensity term: "maximum", the brighter source (ViR-MFS), or "detailed", `detailed_target`.
        direction: of the gradient term: "joint", |∇| as the sum of the responses to both Sobel kernels (ViR-MFS), or
            "separate", `directional_gradient_loss` (MAFS).
        picture: further terms, for a network with `band_fusion`; None for none.
    """

    gradient: float = Field(50.0, ge=0)
    direction: Literal["joint", "separate"] = "joint"
    intensity: float = Field(20.0, ge=0)
    target: Literal["maximum", "detailed"] = "maximum"
    segmentation: float = Field(1.0, ge=0)
    lovasz: float = Field(0.0, ge=0)
    boxes: float = Field(0.0, ge=0)
    class_weights: list[float] | None = None
    picture: PictureLoss | None = None

    @property
    def fuses(self) -> bool:
        """Whether any term is about the picture; without one, no picture is made in training."""
        return self.gradient > 0 or self.intensity > 0 or self.picture is not None


class MetaConfig(Section):
    """Meta steps.

    Attributes:
        enabled: whether there are any.
        schedule: the two public states of the authors' code differ. "first_release": in epochs from `warmup_epochs` on
            that `period` divides, the fusion branch in even epochs, right after the first full step, and the
            segmentation branch in odd epochs, after the second full step. "second_release": in every `period`-th epoch
            counted from `warmup_epochs`, the two branches in turn, between the two full steps.
        inner_lr: α of the inner step.
        lr: of the separate Adam that applies the meta gradient.
    """

    enabled: bool = True
    schedule: Literal["first_release", "second_release"] = "second_release"
    warmup_epochs: int = Field(1, ge=0)
    period: int = Field(3, ge=1)
    inner_lr: float = Field(1e-5, gt=0)
    lr: float = Field(5e-5, gt=0)


class VirmfsConfig(Section):
    """Config of the `virmfs` recipe.

    Attributes:
        second_full_step: whether each batch gets the second full step of the published recipe.
        self_training: None leaves pairs without labels to fusion alone.
    """

    model: VirmfsModelConfig = VirmfsModelConfig()
    data: DataConfig
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig
    meta: MetaConfig = MetaConfig()
    second_full_step: bool = True
    self_training: SelfTrainingConfig | None = None
    run: ScoredRunConfig
    recipe: Literal["virmfs"] = "virmfs"

    @model_validator(mode="after")
    def _meta_steps_need_every_weight(self) -> "VirmfsConfig":
        if self.model.frozen and self.meta.enabled:
            raise ValueError("meta steps train whole branches: set meta.enabled=false, or leave model.frozen empty")
        return self

    @model_validator(mode="after")
    def _picture_loss_needs_weights_of_bands(self) -> "VirmfsConfig":
        if self.loss.picture is not None and not self.model.arguments.get("band_fusion"):
            raise ValueError(
                "loss.picture is about wavelet bands: set model.arguments.band_fusion, or loss.picture=null"
            )
        return self


def meta_branch(config: MetaConfig, epoch: int) -> Branch | None:
    """The branch that gets meta steps in `epoch` (from 0), or None."""
    if not config.enabled or epoch < config.warmup_epochs:
        return None
    if config.schedule == "first_release":
        if epoch % config.period:
            return None
        return "fusion" if epoch % 2 == 0 else "segmentation"
    turn, rest = divmod(epoch - config.warmup_epochs, config.period)
    if rest:
        return None
    return "fusion" if turn % 2 == 0 else "segmentation"


def fusion_loss(fused: Tensor, weights: Tensor, batch: Sample, config: LossConfig) -> dict[str, Tensor]:
    """Terms of L_f, each with its weight: {"gradient": ..., "intensity": ..., ...}, from the result of `fuse_image`."""
    light = luminance(batch.visible)
    gradient = gradient_loss if config.direction == "joint" else directional_gradient_loss
    if config.target == "maximum":
        intensity = intensity_loss(fused, light, batch.infrared)
    else:
        salient = saliency_mask(batch.infrared, batch.labels)
        intensity = detailed_intensity_loss(fused, light, batch.infrared, salient)
    terms = {
        "gradient": config.gradient * gradient(fused, light, batch.infrared),
        "intensity": config.intensity * intensity,
    }
    if config.picture is not None:
        clean = (luminance(batch.clean[:, :3]), batch.clean[:, 3:])
        terms |= config.picture(fused, weights, (light, batch.infrared), clean, batch.labels)
    return terms


class FusionBranch(nn.Module):
    """L_f as a function of the fusion branch's parameters, for backbone features that are given."""

    role: Role = "fusion"

    def __init__(self, model: ViRMFS, config: LossConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, encoded: list[tuple[Tensor, Tensor]], batch: Sample) -> Tensor:
        fused, weights = self.model.fuse_image(self.model.fuse_features(encoded), batch.visible, batch.infrared)
        return torch.stack(list(fusion_loss(fused, weights, batch, self.config).values())).sum()


class SegmentationBranch(nn.Module):
    """Cross-entropy as a function of the segmentation head's parameters, for backbone features that are given."""

    role: Role = "segmentation"

    def __init__(self, model: ViRMFS, weight: float, class_weights: Tensor | None) -> None:
        super().__init__()
        self.model, self.weight, self.class_weights = model, weight, class_weights

    def forward(self, encoded: list[tuple[Tensor, Tensor]], batch: Sample) -> Tensor:
        logits = self.model.segment(self.model.fuse_features(encoded), batch.infrared)
        return self.weight * cross_entropy(logits, batch.labels, self.class_weights, batch.weight)


def meta_gradients(branch: FusionBranch | SegmentationBranch, batch: Sample, inner_lr: float) -> dict[str, Tensor]:
    """Second-order gradient of the query loss at θ' = θ - inner_lr ∇L_support(θ), for each parameter of the branch.

    Args:
        branch: with the network in training mode; batch statistics are updated, as in the published code.
        batch: B pairs; support and query are its halves, the whole of it twice where B = 1.
        inner_lr: step of the inner update.

    Returns:
        {name below `branch`: gradient}.
    """
    half = max(1, len(batch.visible) // 2)
    support = Sample(*(x[:half] for x in batch))
    query = Sample(*(x[-half:] for x in batch))
    with torch.no_grad():
        encoded = [branch.model.encode(part.visible, part.infrared) for part in (support, query)]
    parameters: dict[str, Tensor] = {f"model.{name}": p for name, p in branch.model.role(branch.role).items()}
    inner = torch.autograd.grad(
        functional_call(branch, parameters, (encoded[0], support)), list(parameters.values()), create_graph=True
    )
    adapted = {
        name: parameter - inner_lr * gradient
        for (name, parameter), gradient in zip(parameters.items(), inner, strict=True)
    }
    outer = functional_call(branch, adapted, (encoded[1], query))
    return dict(zip(parameters, torch.autograd.grad(outer, list(parameters.values())), strict=True))


@dataclass
class Objective:
    """L, as a function of a network and a batch.

    Attributes:
        loss: weights of its terms.
        class_weights: (K,) or None.
        accelerator: means are taken over the pixels of all processes.
        precision: of the network's pass.
    """

    loss: LossConfig
    class_weights: Tensor | None
    accelerator: Accelerator
    precision: Precision = "float32"

    def __call__(self, model: ViRMFS, batch: Sample) -> dict[str, Tensor]:
        """The terms of L, each with its weight."""
        with autocast(self.precision, self.accelerator):
            features = model.fuse_features(model.encode(batch.visible, batch.infrared))
            picture = model.fuse_image(features, batch.visible, batch.infrared) if self.loss.fuses else None
            logits = model.segment(features, batch.infrared)
        logits, labels = logits.float(), batch.labels
        terms = {}
        if picture is not None:
            fused, weights = picture
            terms = fusion_loss(fused.float(), weights.float(), batch, self.loss)
        terms["segmentation"] = self.loss.segmentation * mean_over_processes(
            *cross_entropy_sum(logits, labels, self.class_weights, batch.weight), self.accelerator
        )
        if self.loss.lovasz:
            terms["lovasz"] = self.loss.lovasz * mean_over_processes(
                *lovasz_softmax_sum(logits, labels, batch.weight), self.accelerator
            )
        if self.loss.boxes:
            terms["boxes"] = self.loss.boxes * mean_over_processes(
                *box_sum(logits, batch.boxes, batch.weight), self.accelerator
            )
        return terms


class Virmfs(loop.Recipe):
    """The recipe as the loop runs it."""

    model: ViRMFS

    def __init__(self, config: VirmfsConfig, info: DatasetInfo, accelerator: Accelerator) -> None:
        model: ViRMFS = create_network(config.model, "virmfs", "virmfs", info, config.run.seed)
        if config.model.backbone_weights is not None:
            load_backbone(model.backbone, config.model.backbone_weights)
        super().__init__(config, place(model, accelerator), accelerator)
        self.config, self.monitor = config, config.run.monitor
        self.with_labels = make_labeller(config.self_training, model.classes, config.run.precision, accelerator)
        weights = class_weights(config.loss.class_weights, info, accelerator.device)
        self.objective = Objective(config.loss, weights, accelerator, config.run.precision)
        self.branches: dict[Branch, FusionBranch | SegmentationBranch] = {
            "fusion": FusionBranch(model, config.loss),
            "segmentation": SegmentationBranch(model, config.loss.segmentation, weights),
        }
        self.meta_optimisers = {
            name: Adam(model.role(branch.role).values(), config.meta.lr) for name, branch in self.branches.items()
        }

    def parts(self) -> dict[str, Adam]:
        return {f"meta_{name}": optimiser for name, optimiser in self.meta_optimisers.items()}

    def step(self, batch: Sample, epoch: int) -> Mapping[str, Tensor]:
        branch = meta_branch(self.config.meta, epoch)
        late = branch == "segmentation" and self.config.meta.schedule == "first_release"
        batch = self.with_labels(batch)
        terms = self._full_step(batch)
        if branch is not None and not late:
            self._meta_step(branch, batch)
        if self.config.second_full_step:
            self._full_step(batch)
        if branch is not None and late:
            self._meta_step(branch, batch)
        return terms

    def _full_step(self, batch: Sample) -> dict[str, Tensor]:
        terms = self.objective(self.model, batch)
        self.descend(torch.stack(list(terms.values())).sum())
        return {name: term.detach() for name, term in terms.items()}

    def _meta_step(self, name: Branch, batch: Sample) -> None:
        """Always in float32, since half precision would lose the small second-order terms."""
        branch = self.branches[name]
        gradients = meta_gradients(branch, batch, self.config.meta.inner_lr)
        parameters = dict(branch.named_parameters())
        branch.zero_grad(set_to_none=True)
        for key, gradient in gradients.items():
            parameters[key].grad = gradient
        average_gradients((parameters[key] for key in gradients), self.accelerator)
        self.meta_optimisers[name].step()


def train(config: VirmfsConfig, directory: Path) -> Path:
    """Train, or go on with the run in `directory`; see `tectum.recipes.loop.train`."""
    return loop.train(Virmfs, config, directory)
