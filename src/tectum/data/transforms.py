"""Pairs as tensors for training: reading, augmentation, and an order that depends on nothing but the seed and the step.

Every sample draws its augmentation from a generator seeded by (seed, step, place in the batch). So the data of step n
are the same however often training was interrupted before, and however many processes or workers share the batch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tvf

from tectum.data.boxes import read_boxes
from tectum.data.cameras import Cameras
from tectum.data.pair import IGNORE, Pair, PairPaths, read_pair
from tectum.data.truth import partial_labels, unmasked_boxes
from tectum.data.weather import Weather, integer, uniform
from tectum.section import Section


class Sample(NamedTuple):
    """One pair, or a batch of them with a leading B.

    Attributes:
        visible: (3, H, W) float32 in [0, 1].
        infrared: (1, H, W) float32 in [0, 1].
        labels: (H, W) int64 class ids, 255 where there is no label, and below 0 what `tectum.data.truth.any_of` gives
            where no more is known than that it is one of several classes.
        clean: (4, H, W) float32 in [0, 1], visible and infrared image as they are without what weather makes of them.
        boxes: (H, W) int64, the boxes of objects without a mask, as `tectum.data.truth.unmasked_boxes` gives them.
        weight: () float32, of the pair's labels in the losses.
    """

    visible: Tensor
    infrared: Tensor
    labels: Tensor
    clean: Tensor
    boxes: Tensor
    weight: Tensor

    @classmethod
    def of_clean(cls, visible: Tensor, infrared: Tensor, labels: Tensor) -> "Sample":
        """A pair, or a batch, that nothing has been rendered on, without boxes."""
        weight = torch.ones(labels.shape[:-2])
        return cls(visible, infrared, labels, torch.cat((visible, infrared), dim=-3), torch.zeros_like(labels), weight)


class Augmentation(Section):
    """What happens to a training pair, in this order.

    Attributes:
        resize: (H, W) that every pair is first resized to, bilinear for images and nearest for labels; None leaves it.
        crop: side of the square random crop; None takes the whole image.
        scale: range of the random factor by which the image is resized before the crop (log-uniform). An image that
            would become smaller than the crop is enlarged to fit.
        foreground: probability that the crop is laid around a pixel of a class other than 0, all such classes of the
            image being equally likely.
        flip: probability of a horizontal flip.
        turn: probability of a rotation by 90, 180 or 270 degrees, each equally likely; needs `crop`.
        brightness: each modality on its own is multiplied by a factor from [1 - b, 1 + b].
        gamma: each modality on its own is raised to a power from [1 / (1 + g), 1 + g] (log-uniform).
        blur: largest standard deviation, in pixels, of a Gaussian blur, drawn from [0, blur] for each modality.
        noise: largest standard deviation of Gaussian noise, drawn from [0, noise] for each modality.
        cameras: what other cameras would make of the scene, and parts of their scenes; its `tones` and `parts` come
            before brightness, the others after noise. Its `parts` needs `crop`.
        weather: how often fog, glare, thermal noise and others are rendered on what there is by then.
        dropout: probability that one of the modalities is of one grey, from black to white, as if its camera had failed
            or its shutter were closed.
        dropped: which one; by default either, equally likely.
    """

    resize: tuple[int, int] | None = None
    crop: int | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    foreground: float = Field(0.0, ge=0, le=1)
    flip: float = Field(0.0, ge=0, le=1)
    turn: float = Field(0.0, ge=0, le=1)
    brightness: float = Field(0.0, ge=0, lt=1)
    gamma: float = Field(0.0, ge=0)
    blur: float = Field(0.0, ge=0)
    noise: float = Field(0.0, ge=0)
    cameras: Cameras = Cameras()
    weather: Weather = Weather()
    dropout: float = Field(0.0, ge=0, le=1)
    dropped: Literal["either", "visible", "infrared"] = "either"

    @model_validator(mode="after")
    def _turned_images_stay_one_size(self) -> "Augmentation":
        if self.turn and self.crop is None:
            raise ValueError("turn needs crop, since a turned image that is not square has another size")
        return self

    @model_validator(mode="after")
    def _parts_are_of_one_size(self) -> "Augmentation":
        if (self.cameras.parts or self.cameras.tones) and self.crop is None:
            raise ValueError("cameras.parts and cameras.tones need crop, since pairs of several cameras differ in size")
        return self

    def __call__(self, sample: Sample, another: Callable[[], Sample] | None = None) -> Sample:
        """Augment one clean pair with the global torch generator.

        Args:
            sample: as it was read.
            another: draws a further training pair, that `place` has laid out and whose labels may be sets; needed for
                `cameras.tones` and `cameras.parts`.
        """
        return self.develop(self.place(sample), another)

    def place(self, sample: Sample) -> Sample:
        """The first half: what the crop shows, and how it lies."""
        parts = _parts(sample)
        if self.resize is not None:
            parts = _resize(parts, self.resize)
        if self.crop is not None:
            parts = self._scale_and_crop(*parts)
        if uniform(0, 1) < self.flip:
            parts = tuple(tvf.horizontal_flip(x) for x in parts)
        if self.turn and uniform(0, 1) < self.turn:
            quarters = 1 + integer(3)
            parts = tuple(torch.rot90(x, quarters, dims=(-2, -1)) for x in parts)
        return _with_parts(sample, parts)

    def develop(self, sample: Sample, another: Callable[[], Sample] | None = None) -> Sample:
        """The second half: what camera and weather make of it."""
        if another is not None:
            sample = self.cameras.mix(sample, another)
        visible, infrared = (self._photometric(image) for image in (sample.visible, sample.infrared))
        visible, infrared = self.cameras.see(visible, infrared)
        clean = torch.cat((visible, infrared))
        visible, infrared = self.weather(visible, infrared)
        if self.dropout and uniform(0, 1) < self.dropout:
            grey = min(max(uniform(-0.5, 1.5), 0.0), 1.0)
            images = [visible, infrared]
            lost = integer(2) if self.dropped == "either" else ("visible", "infrared").index(self.dropped)
            images[lost] = torch.full_like(images[lost], grey)
            visible, infrared = images
        return sample._replace(visible=visible, infrared=infrared, clean=clean)

    def _scale_and_crop(self, *pair: Tensor) -> tuple[Tensor, ...]:
        assert self.crop is not None
        height, width = pair[0].shape[-2:]
        factor = _log_uniform(*self.scale)
        factor = max(factor, self.crop / min(height, width))
        size = (max(self.crop, round(height * factor)), max(self.crop, round(width * factor)))
        # The crop's place is chosen before resizing, so that only what is kept is resized.
        side = (min(height, round(self.crop * height / size[0])), min(width, round(self.crop * width / size[1])))
        top, left = self._corner(pair[2], side)
        cropped = [tvf.crop(x, top, left, *side) for x in pair]
        return _resize(cropped, (self.crop, self.crop))

    def _corner(self, labels: Tensor, side: tuple[int, int]) -> tuple[int, int]:
        free = [labels.shape[-2] - side[0], labels.shape[-1] - side[1]]
        if uniform(0, 1) < self.foreground:
            counts = torch.bincount(labels.flatten())  # much quicker than unique
            present = [c for c in counts.nonzero().flatten().tolist() if c not in (0, IGNORE)]
            if present:
                chosen = present[integer(len(present))]
                places = torch.nonzero(labels == chosen)
                place = places[integer(len(places))].tolist()
                corner = [at - integer(extent) for at, extent in zip(place, side, strict=True)]
                return min(max(corner[0], 0), free[0]), min(max(corner[1], 0), free[1])
        return integer(free[0] + 1), integer(free[1] + 1)

    def _photometric(self, image: Tensor) -> Tensor:
        if self.gamma:
            image = image ** _log_uniform(1 / (1 + self.gamma), 1 + self.gamma)
        if self.brightness:
            image = image * uniform(1 - self.brightness, 1 + self.brightness)
        if self.blur:
            sigma = uniform(self.blur, 0)  # in this order never 0, which would be an error
            image = tvf.gaussian_blur(image, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2)
        if self.noise:
            image = image + torch.randn_like(image) * uniform(0, self.noise)
        return image.clamp(0, 1)


def _parts(sample: Sample) -> tuple[Tensor, ...]:
    """Visible and infrared image, labels and boxes, as torchvision tells images from masks."""
    images = (tv_tensors.Image(sample.visible), tv_tensors.Image(sample.infrared))
    return (*images, tv_tensors.Mask(sample.labels), tv_tensors.Mask(sample.boxes))


def _with_parts(sample: Sample, parts: Sequence[Tensor]) -> Sample:
    """The clean sample with what became of its `_parts`."""
    visible, infrared, labels, boxes = (x.as_subclass(Tensor) for x in parts)
    return Sample.of_clean(visible, infrared, labels)._replace(boxes=boxes, weight=sample.weight)


def pair_tensors(pair: Pair) -> tuple[Tensor, Tensor]:
    """The images of a pair, visible (3, H, W) and infrared (1, H, W) in [0, 1]."""
    visible = torch.from_numpy(np.ascontiguousarray(pair.visible.transpose(2, 0, 1)))
    return visible, torch.from_numpy(pair.infrared)[None]


def _resize(pair: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Bilinear for images, nearest for masks: torchvision chooses by the tensor's type."""
    if tuple(pair[0].shape[-2:]) == tuple(size):
        return tuple(pair)
    return tuple(v2.Resize(size, antialias=True)(x) for x in pair)


def _log_uniform(low: float, high: float) -> float:
    return float(np.exp(uniform(np.log(low), np.log(high))))


def derive_seed(*parts: int) -> int:
    """A well-mixed 63-bit seed from several integers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


class PairDataset(Dataset[Sample]):
    """Training pairs, indexed by (row of the table, seed of the augmentation)."""

    def __init__(self, table: Sequence[PairPaths], classes: int, augmentation: Augmentation) -> None:
        self.table = table
        self.classes = classes
        self.augmentation = augmentation

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        row, seed = key
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sample = self._placed(self.table[row])
            return self.augmentation.develop(sample, lambda: self._placed(self.table[integer(len(self.table))]))

    def _placed(self, paths: PairPaths) -> Sample:
        """A pair as the crop shows it, with sets of classes where its labels say no more."""
        sample = self.augmentation.place(_read(paths, self.classes))
        looked_for = paths.use.looked_for
        return sample._replace(labels=partial_labels(sample.labels, sample.boxes, self.classes, looked_for))


def _read(paths: PairPaths, classes: int) -> Sample:
    pair, use = read_pair(paths, classes=classes), paths.use
    boxes = read_boxes(paths.boxes) if use.boxes and paths.boxes else None
    label = pair.label
    if label is None:
        # With boxes alone there is nothing of their classes outside them.
        label = np.full(pair.infrared.shape, IGNORE if boxes is None else 0, np.uint8)
    sample = Sample.of_clean(*pair_tensors(pair), torch.from_numpy(label.astype(np.int64)))
    sample = sample._replace(weight=torch.tensor(use.weight))
    if boxes is not None:
        sample = sample._replace(boxes=unmasked_boxes(boxes, label))
    if use.scale == 1:
        return sample
    size = (round(use.scale * label.shape[0]), round(use.scale * label.shape[1]))
    return _with_parts(sample, _resize(_parts(sample), size))


class StepSampler:
    """Rows and seeds of the training batches, each a pure function of (seed, step).

    An epoch is one shuffle of the rows, cut into whole batches; the rest that fills no batch is left out of that epoch.

    Args:
        rows: number of rows in the table.
        batch: pairs per step over all processes.
        seed: of the run.
        steps: range of steps to produce.
        rank, processes: this process takes its share of each batch.
    """

    def __init__(self, rows: int, batch: int, seed: int, steps: range, rank: int = 0, processes: int = 1) -> None:
        self.rows, self.batch, self.seed, self.steps = rows, batch, seed, steps
        share = batch // processes
        self.places = range(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = self.rows // self.batch
        order: list[int] = []
        shuffled = -1
        for step in self.steps:
            epoch, batch = divmod(step, per_epoch)
            if epoch != shuffled:
                order = np.random.default_rng(derive_seed(self.seed, epoch)).permutation(self.rows).tolist()
                shuffled = epoch
            yield [
                (order[batch * self.batch + place], derive_seed(self.seed, step, place + 1)) for place in self.places
            ]
