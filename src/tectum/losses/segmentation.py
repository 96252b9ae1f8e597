"""Losses of the label map, and the binary and boundary maps that are made from it."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.data.pair import IGNORE
from tectum.data.truth import box_label

BOX_SHARE = 0.25
"""Share of a box's pixels that its object fills at least; `tectum.metrics.box_counts` counts as found what has it."""


def cross_entropy_sum(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, of_pairs: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy summed over the labelled pixels, and the sum of their weights.

    The two are returned apart so that a mean can be taken over a batch that is spread over processes, and so that a
    batch without a single label costs nothing instead of 0/0.

    Args:
        logits: (B, K, H, W).
        labels: (B, H, W) int64, class ids, 255 = ignore, or sets of classes from `tectum.data.truth.any_of`. Of a
            pixel that may be of any class of a set, the loss is that of the sum of their probabilities, and the weight
            the smallest of theirs.
        weights: (K,) class weights, or None for 1 each.
        of_pairs: (B,) weights of the pairs, or None for 1 each.

    Returns:
        (sum of losses, sum of weights), scalars.
    """
    if of_pairs is not None and bool((of_pairs != of_pairs[0]).any()):
        sums = [cross_entropy_sum(scores[None], one[None], weights) for scores, one in zip(logits, labels, strict=True)]
        total, weight = (torch.stack(each) @ of_pairs.to(logits) for each in zip(*sums, strict=True))
        return total, weight
    certain = labels.where(labels >= 0, IGNORE)
    total = F.cross_entropy(logits, certain, weights, ignore_index=IGNORE, reduction="sum")
    labelled = certain != IGNORE
    weight = labelled.sum().to(total.dtype) if weights is None else weights[certain[labelled]].sum()
    sets = labels[labels < 0].unique().tolist()
    everything = logits.logsumexp(dim=1) if sets else logits.new_zeros(())
    for several in sets:
        members, here = _members(several, logits.shape[1]), labels == several
        smallest = logits.new_ones(()) if weights is None else weights[members].min()
        # Whole planes and a mask: picking the pixels out takes several times as long.
        total = total + smallest * ((everything - logits[:, members].logsumexp(dim=1)) * here).sum()
        weight = weight + smallest * here.sum()
    return (total, weight) if of_pairs is None else (total * of_pairs[0], weight * of_pairs[0])


def _members(several: int, classes: int) -> list[int]:
    """Ids of a set of classes from `tectum.data.truth.any_of`."""
    return [label for label in range(classes) if -several >> label & 1]


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, of_pairs: Tensor | None = None
) -> Tensor:
    """Weighted mean cross-entropy over the labelled pixels, 0 if there are none. Arguments as `cross_entropy_sum`."""
    total, weight = cross_entropy_sum(logits, labels, weights, of_pairs)
    return total / torch.clamp(weight, min=torch.finfo(weight.dtype).tiny)


def ohem_sum(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, threshold: float = 0.75, minimum: int = 65536
) -> tuple[Tensor, Tensor]:
    """Cross-entropy over the hard pixels only: online hard example mining as in PSFusion and MAFS.

    Hard are the labelled pixels whose true class is predicted with less than `threshold`; where fewer than `minimum`
    are, the `minimum` hardest count, and all of them where no more than that are labelled. The released loss fails on
    such a batch. The plain cross-entropy chooses the pixels, since the threshold is a probability; the class weights
    only weigh what was chosen.

    Args:
        logits: (B, K, H, W).
        labels: (B, H, W) int64, class ids or 255 = ignore.
        weights: (K,) class weights, or None for 1 each.
        threshold: probability in (0, 1] from which on a pixel is easy.
        minimum: pixels to keep at least, of the batch of this process; 65536 is one crop of 256 x 256 (PSFusion).

    Returns:
        (sum of the kept losses, sum of their weights), scalars, as `cross_entropy_sum`; (0, 0) without labels.
    """
    labels = labels.where(labels >= 0, IGNORE)
    labelled = labels != IGNORE
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")[labelled]
    classes = labels[labelled]
    if losses.numel() > minimum:
        hard = losses.detach() > -math.log(threshold)
        # Sorting out the hardest costs much more than the comparison, and late in training is what happens.
        kept = hard if hard.sum() >= minimum else losses.detach().topk(minimum, sorted=False).indices
        losses, classes = losses[kept], classes[kept]
    chosen = torch.ones_like(losses) if weights is None else weights[classes]
    return (losses * chosen).sum(), chosen.sum()


def lovasz_softmax_sum(logits: Tensor, labels: Tensor, of_pairs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Lovász-softmax loss per image, summed over the images that have labels.

    The convex surrogate of 1 - IoU of Berman et al., "The Lovász-Softmax loss" (CVPR 2018): the mean over the classes
    that occur in the image, ignored pixels left out.

    Args:
        logits: (B, K, H, W).
        labels: (B, H, W) int64, class ids, 255 = ignore, or sets of classes from `tectum.data.truth.any_of`: such a
            pixel is none of the classes outside the set, and is left out of the losses of those inside.
        of_pairs: (B,) weights of the pairs, or None for 1 each.

    Returns:
        (sum over the images of their losses, each in [0, 1], number of images with a labelled pixel), both weighted,
        scalars.
    """
    total = logits[:0].sum()  # 0 that hangs on the graph
    images = logits.new_zeros(())
    weights = logits.new_ones(len(logits)) if of_pairs is None else of_pairs.to(logits)
    for scores, truth, weight in zip(logits, labels, weights, strict=True):
        known = truth != IGNORE
        truth = truth[known]
        present = truth[truth >= 0].unique()
        if len(present) == 0:
            continue
        probabilities = scores[:, known].softmax(0)
        if (truth < 0).any():
            losses = [_lovasz(probabilities[c : c + 1], *_membership(truth, c)) for c in present.tolist()]
            total = total + weight * torch.cat(losses).mean()
        else:
            total = total + weight * _lovasz(probabilities[present], truth == present[:, None]).mean()
        images = images + weight
    return total, images


def _membership(truth: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """(pixels) ids and sets -> (1, pixels) which are of a class, and (pixels) of which it is known whether they are."""
    unknown = (truth < 0) & ((-truth >> label) & 1 > 0)
    return (truth == label)[None], ~unknown


def _lovasz(probabilities: Tensor, foreground: Tensor, known: Tensor | None = None) -> Tensor:
    """(classes, pixels) probabilities and truth -> (classes,) losses, over the pixels that are known."""
    if known is not None:
        probabilities, foreground = probabilities[:, known], foreground[:, known]
    errors, order = (foreground.to(probabilities.dtype) - probabilities).abs().sort(dim=1, descending=True)
    return (errors * _jaccard_steps(foreground.gather(1, order))).sum(1)


def box_sum(logits: Tensor, boxes: Tensor, of_pairs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What boxes without masks ask for: -log of the class's mean probability over the likeliest quarter of the box.

    Boxes that touch the border of the image don't count, since the crop may have cut off their object. Source: this
    project.

    Args:
        logits: (B, K, H, W).
        boxes: (B, H, W) int64, from `tectum.data.truth.unmasked_boxes`.
        of_pairs: (B,) weights of the pairs, or None for 1 each.

    Returns:
        (sum over the boxes of their losses, number of boxes), both weighted, scalars.
    """
    total = logits[:0].sum()  # 0 that hangs on the graph
    number = logits.new_zeros(())
    weights = logits.new_ones(len(logits)) if of_pairs is None else of_pairs.to(logits)
    for image in boxes.flatten(1).any(dim=1).nonzero().flatten().tolist():
        drawn = boxes[image]
        border = torch.cat((drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1])).unique()
        found = drawn.unique()
        for box in found[(found > 0) & ~torch.isin(found, border)]:
            scores = logits[image][:, drawn == box].log_softmax(dim=0)[int(box_label(box))]
            likeliest = scores.topk(math.ceil(BOX_SHARE * len(scores))).values
            total = total - weights[image] * (likeliest.logsumexp(dim=0) - math.log(len(likeliest)))
            number = number + weights[image]
    return total, number


def _jaccard_steps(foreground: Tensor) -> Tensor:
    """By how much the Jaccard loss grows when the pixels are mispredicted one after the other.

    (classes, pixels) bool, each row with at least one True -> (classes, pixels) float, each row summing to 1. With
    I and U the intersection and union after a pixel, a lost foreground pixel adds 1 / U and a background pixel that is
    taken in I / (U - 1) - I / U: written out, where the difference of two losses near 1 would cancel.
    """
    size = foreground.sum(1, keepdim=True)
    intersection = size - foreground.cumsum(1)
    union = size + (~foreground).cumsum(1)
    background_step = intersection / (union * (union - 1).clamp(min=1))
    return torch.where(foreground, 1 / union, background_step)


def binary_target(labels: Tensor) -> Tensor:
    """Foreground map of a label map: 1 for a class, 0 for class 0 (background), 255 stays.

    Args:
        labels: (B, H, W) int64, class ids or 255 = ignore.

    Returns:
        (B, H, W) int64 of 0, 1 and 255.
    """
    return (labels != 0).to(labels.dtype).masked_fill(labels == IGNORE, IGNORE)


def boundary_target(labels: Tensor, radius: int = 3) -> Tensor:
    """Boundary map of a label map: 1 where two classes meet within `radius` pixels, else 0.

    A pixel is boundary where its square neighbourhood of 2 * radius + 1 pixels, cut at the image's edge, holds two
    classes. Ignored pixels are no class, so that the edge of an ignored region is not a boundary. An ignored pixel is
    boundary like any other where two classes are around it, since whichever class it were, another one is near;
    elsewhere it stays ignored.

    The default radius is the one whose share of boundary pixels fits the class weights published for this map, 1.4459
    and 23.7228: by their rule 1 / ln(1.02 + share), 2.3 % of the pixels are boundary. Over consensus label maps of 95
    training pairs of MSRS, radius 1, 2, 3 and 4 give 0.6, 1.2, 2.0 and 2.7 %, with 6.5 % foreground where the
    published 10.2388 implies 8.3 %.

    Args:
        labels: (B, H, W) int64, class ids or 255 = ignore.
        radius: pixels, at least 1.

    Returns:
        (B, H, W) int64 of 0, 1 and 255.
    """
    ignored = labels == IGNORE
    ids = labels.float()
    highest = F.max_pool2d(ids.masked_fill(ignored, -1), 2 * radius + 1, stride=1, padding=radius)
    lowest = -F.max_pool2d(-ids, 2 * radius + 1, stride=1, padding=radius)  # 255 is above every class
    boundary = highest > lowest
    return boundary.to(labels.dtype).masked_fill(ignored & ~boundary, IGNORE)
