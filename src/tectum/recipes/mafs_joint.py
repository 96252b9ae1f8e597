"""The `mafs_joint` recipe: stage II of MAFS, fusion and segmentation trained together from the pretrained encoder.

    L = w_f L_f + w_s L_s
    L_f = a gradient + b intensity
    L_s = semantic + Σ auxiliary semantic + binary + boundary + distillation, each with its weight

The gradient term draws the fused image to the stronger edge in either direction, the intensity term to one source per
pixel, infrared where it varies more or is salient. The segmentation terms look at the logits and at the six auxiliary
outputs: three semantic ones, two of foreground against background (1/8, 1/16) and one of class boundaries (1/4), whose
targets are made from the labels of the batch. The distillation term compares the logits, channel by channel, with
those of a frozen teacher that sees the current fused image in place of the visible one. The weights w_f and w_s follow
how far each task has come (`tectum.losses.balance`).

The training code of MAFS is not public. Terms, weights and schedule of the defaults are those of PSFusion, from which
the released network and losses derive; which auxiliary output gets which target follows CAINet, from which the heads
derive; the dynamic weights are this library's reading of the paper's max-min fairness.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from pydantic import Field, model_validator
from torch import Tensor, nn

from tectum.data.datasets import DatasetInfo
from tectum.data.pair import IGNORE
from tectum.data.transforms import Sample
from tectum.errors import ConfigError
from tectum.losses.balance import Balance, TaskBalance
from tectum.losses.distillation import channel_distillation
from tectum.losses.fusion import (
    detailed_intensity_loss,
    directional_gradient_loss,
    intensity_loss,
    saliency_mask,
    selected_intensity_loss,
)
from tectum.losses.segmentation import (
    binary_target,
    boundary_target,
    cross_entropy_sum,
    lovasz_softmax_sum,
    ohem_sum,
)
from tectum.models import load
from tectum.models.base import FusionSegmenter, luminance
from tectum.models.mafs import MAFS
from tectum.recipes import loop
from tectum.recipes.config import (
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    Precision,
    ScoredRunConfig,
    SelfTrainingConfig,
)
from tectum.recipes.networks import class_weights, create_network, load_segmenter, make_labeller
from tectum.recipes.processes import autocast, mean_over_processes, place
from tectum.section import Section


class FusionLossConfig(Section):
    """Weights of the fusion terms.

    Attributes:
        gradient: weight of `directional_gradient_loss`.
        intensity: weight of the intensity term.
        target: of the intensity term: "selected", one source per pixel (MAFS), "maximum", the brighter one (ViR-MFS),
            or "detailed", `detailed_target`.
    """

    gradient: float = Field(10.0, ge=0)
    intensity: float = Field(10.0, ge=0)
    target: Literal["selected", "maximum", "detailed"] = "selected"


class SegmentationLossConfig(Section):
    """Weights of the segmentation terms.

    Attributes:
        kind: loss of the semantic outputs: "ohem", "cross_entropy" or "lovasz".
        semantic: weight of that loss on the logits.
        auxiliary: on each of the three semantic auxiliary outputs.
        binary: of the cross-entropy on the two foreground outputs, their mean.
        boundary: of the cross-entropy on the boundary output.
        class_weights: of the semantic classes, not used by "lovasz"; None: 1 each.
        binary_weights, boundary_weights: of the classes (no, yes) of these two-class maps.
    """

    kind: Literal["ohem", "cross_entropy", "lovasz"] = "ohem"
    semantic: float = Field(10.0, ge=0)
    auxiliary: float = Field(5.0, ge=0)
    binary: float = Field(10.0, ge=0)
    boundary: float = Field(10.0, ge=0)
    class_weights: list[float] | None = None
    binary_weights: tuple[float, float] = (1.5121, 10.2388)
    boundary_weights: tuple[float, float] = (1.4459, 23.7228)


class TeacherConfig(Section):
    """Frozen segmenter of the fused image.

    Attributes:
        model: goes to `tectum.load`: shipped weights or a directory; with the same classes.
        weight: of the distillation term.
        temperature: of the softmax over positions.
    """

    model: str
    weight: float = Field(3.0, ge=0)
    temperature: float = Field(4.0, gt=0)


class MafsJointConfig(Section):
    """Config of the `mafs_joint` recipe.

    Attributes:
        pretrained: directory written by `mafs_pretrain`, to start the encoder from; None starts from `model` as it is,
            and to go on from a whole trained network, that is `model.weights`.
        teacher: None trains without distillation.
        self_training: None leaves pairs without labels to fusion alone.
    """

    model: ModelConfig = ModelConfig(name="mafs_r152")
    pretrained: Path | None = None
    data: DataConfig
    fusion: FusionLossConfig = FusionLossConfig()
    segmentation: SegmentationLossConfig = SegmentationLossConfig()
    teacher: TeacherConfig | None = None
    balance: Balance = Balance()
    self_training: SelfTrainingConfig | None = None
    optimiser: OptimiserConfig
    run: ScoredRunConfig
    recipe: Literal["mafs_joint"] = "mafs_joint"

    @model_validator(mode="after")
    def _one_start(self) -> "MafsJointConfig":
        if self.pretrained is not None and self.model.weights is not None:
            raise ValueError("pretrained and model.weights both say where the encoder starts: leave one out")
        return self

    @model_validator(mode="after")
    def _sources_are_alike(self) -> "MafsJointConfig":
        if any(source.boxes or source.weight != 1 for source in self.data.train):
            raise ValueError("boxes and weight of data.train are not used by mafs_joint: leave them out")
        return self


def fusion_terms(fused: Tensor, batch: Sample, config: FusionLossConfig) -> dict[str, Tensor]:
    """Terms of L_f, each with its weight: {"gradient": ..., "intensity": ...}."""
    light, infrared = luminance(batch.visible), batch.infrared
    if config.target == "maximum":
        intensity = intensity_loss(fused, light, infrared)
    else:
        loss = detailed_intensity_loss if config.target == "detailed" else selected_intensity_loss
        intensity = loss(fused, light, infrared, saliency_mask(infrared, batch.labels))
    return {
        "gradient": config.gradient * directional_gradient_loss(fused, light, infrared),
        "intensity": config.intensity * intensity,
    }


def segmentation_terms(
    logits: Tensor,
    aux: dict[str, Tensor],
    labels: Tensor,
    config: SegmentationLossConfig,
    class_weights: Tensor | None,
    accelerator: Accelerator,
) -> dict[str, Tensor]:
    """Terms of L_s but for the distillation, each with its weight, 0 where no pixel of the batch is labelled.

    Args:
        logits: (B, K, H, W).
        aux: the auxiliary outputs of `MAFS`.
        labels: (B, H, W) int64, 255 = ignore.
        config: kinds and weights.
        class_weights: (K,) or None.
        accelerator: means are taken over the pixels of all processes.
    """

    def semantic(scores: Tensor) -> Tensor:
        if config.kind == "lovasz":
            total, weight = lovasz_softmax_sum(scores.float(), labels)
        else:
            loss = ohem_sum if config.kind == "ohem" else cross_entropy_sum
            total, weight = loss(scores.float(), labels, class_weights)
        return mean_over_processes(total, weight, accelerator)

    def two_class(scale: int, target: Tensor, weights: tuple[float, float]) -> Tensor:
        scores = aux[f"two_class_{scale}"].float()
        return mean_over_processes(*cross_entropy_sum(scores, target, scores.new_tensor(weights)), accelerator)

    foreground, boundary = binary_target(labels), boundary_target(labels)
    auxiliary = torch.stack([semantic(aux[f"semantic_{scale}"]) for scale in (4, 8, 16)]).sum()
    binary = torch.stack([two_class(scale, foreground, config.binary_weights) for scale in (8, 16)]).mean()
    return {
        "semantic": config.semantic * semantic(logits),
        "auxiliary": config.auxiliary * auxiliary,
        "binary": config.binary * binary,
        "boundary": config.boundary * two_class(4, boundary, config.boundary_weights),
    }


def distillation_term(
    logits: Tensor,
    fused: Tensor,
    batch: Sample,
    teacher: FusionSegmenter,
    config: TeacherConfig,
    precision: Precision,
    accelerator: Accelerator,
) -> Tensor:
    """Weighted distance of the logits to the teacher's, a mean over the labelled pairs; 0 if there are none."""
    labelled = (batch.labels != IGNORE).flatten(1).any(dim=1)
    total, count = logits.new_zeros(()), labelled.sum().float()
    if labelled.any():
        visible, infrared = batch.visible[labelled], batch.infrared[labelled]
        with torch.no_grad(), autocast(precision, accelerator):
            # The fused image in colour, as users see it.
            coloured = (visible + fused[labelled].clamp(0, 1) - luminance(visible)).clamp(0, 1)
            target = teacher(coloured, infrared).logits.float()
        total = count * channel_distillation(logits[labelled], target, config.temperature)
    return config.weight * mean_over_processes(total, count, accelerator)


@dataclass
class Objective:
    """L, as a function of a network and a batch.

    Attributes:
        config: of the recipe.
        class_weights: (K,) or None.
        teacher: frozen segmenter of the config's `teacher`, if there is one.
        balance: is told the losses of each batch, and gives w_f and w_s.
        accelerator: means are taken over the pixels of all processes.
    """

    config: MafsJointConfig
    class_weights: Tensor | None
    teacher: FusionSegmenter | None
    balance: TaskBalance
    accelerator: Accelerator

    def __call__(self, model: nn.Module, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and, detached, what the log shows of it.

        Returns:
            L, and its terms before the task weights are applied, with these as "weight/fusion", "weight/segmentation".
        """
        config, accelerator = self.config, self.accelerator
        with autocast(config.run.precision, accelerator):
            output = model(batch.visible, batch.infrared)
        fused, logits = output.fused.float(), output.logits.float()
        fusion = fusion_terms(fused, batch, config.fusion)
        segmentation = segmentation_terms(
            logits, output.aux, batch.labels, config.segmentation, self.class_weights, accelerator
        )
        if self.teacher is not None and config.teacher is not None:
            segmentation["distillation"] = distillation_term(
                logits, fused, batch, self.teacher, config.teacher, config.run.precision, accelerator
            )
        losses = torch.stack([torch.stack(list(terms.values())).sum() for terms in (fusion, segmentation)])
        labelled = (batch.labels != IGNORE).any().float()
        *values, any_labels = accelerator.reduce(torch.cat((losses.detach(), labelled[None])), "mean").tolist()
        tasks = dict(zip(("fusion", "segmentation"), values, strict=True))
        weights = self.balance.update(tasks if any_labels else {"fusion": tasks["fusion"]})
        terms = {name: term.detach() for name, term in (fusion | segmentation).items()}
        terms |= {f"weight/{name}": torch.tensor(weight) for name, weight in weights.items()}
        return weights["fusion"] * losses[0] + weights["segmentation"] * losses[1], terms


class MafsJoint(loop.Recipe):
    """The recipe as the loop runs it."""

    def __init__(self, config: MafsJointConfig, info: DatasetInfo, accelerator: Accelerator) -> None:
        model: MAFS = create_network(config.model, "mafs", "mafs_joint", info, config.run.seed)
        if config.pretrained is not None:
            pretrained: Any = load(config.pretrained)
            if pretrained.family != model.family:
                raise ConfigError(f"pretrained must be a network of mafs_pretrain, but '{config.pretrained}' is none")
            model.initialise(pretrained)
        super().__init__(config, place(model, accelerator), accelerator)
        self.monitor = config.run.monitor
        teacher = None
        if config.teacher is not None:
            teacher = load_segmenter("teacher.model", config.teacher.model, model.classes, accelerator)
        self.with_labels = make_labeller(config.self_training, model.classes, config.run.precision, accelerator)
        weights = class_weights(config.segmentation.class_weights, info, accelerator.device)
        self.balance = TaskBalance(config.balance, ("fusion", "segmentation"))
        self.objective = Objective(config, weights, teacher, self.balance, accelerator)

    def parts(self) -> dict[str, TaskBalance]:
        return {"balance": self.balance}

    def step(self, batch: Sample, epoch: int) -> Mapping[str, Tensor]:
        loss, terms = self.objective(self.model, self.with_labels(batch))
        self.descend(loss)
        return terms


def train(config: MafsJointConfig, directory: Path) -> Path:
    """Train, or go on with the run in `directory`; see `tectum.recipes.loop.train`."""
    return loop.train(MafsJoint, config, directory)
