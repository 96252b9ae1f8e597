import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tectum.data.truth import any_of
from tectum.losses.segmentation import (
    binary_target,
    boundary_target,
    box_sum,
    cross_entropy,
    cross_entropy_sum,
    lovasz_softmax_sum,
    ohem_sum,
)


def batch(classes: int = 4, size: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random logits (2, classes, size, size) and labels, of which some are ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, size, size, generator=generator)
    labels = torch.randint(0, classes, (2, size, size), generator=generator)
    labels[:, :2] = 255
    return logits, labels


def vertex(prediction: Tensor, classes: int) -> Tensor:
    """Logits whose softmax is exactly 0 or 1: (B, H, W) class ids -> (B, classes, H, W)."""
    return 1000.0 * F.one_hot(prediction, classes).movedim(3, 1)


def test_equals_torch_where_there_are_labels():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 5, 6), torch.randint(0, 4, (2, 5, 6))
    labels[0, :2] = 255
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    torch.testing.assert_close(cross_entropy(logits, labels), F.cross_entropy(logits, labels, ignore_index=255))
    torch.testing.assert_close(
        cross_entropy(logits, labels, weights), F.cross_entropy(logits, labels, weights, ignore_index=255)
    )


def test_of_several_classes_their_probabilities_are_summed():
    logits, _ = batch()
    labels = torch.full((2, 12, 12), 255)
    labels[:, 2:6] = any_of({0, 3})
    labels[:, 6:] = 1
    probabilities = logits.softmax(dim=1)
    several = -(probabilities[:, 0] + probabilities[:, 3])[:, 2:6].log()
    one = -probabilities[:, 1, 6:].log()
    torch.testing.assert_close(cross_entropy(logits, labels), torch.cat((several, one), dim=1).mean())
    weights = torch.tensor([2.0, 4.0, 1.0, 3.0])
    expected = (2 * several.sum() + 4 * one.sum()) / (2 * several.numel() + 4 * one.numel())
    torch.testing.assert_close(cross_entropy(logits, labels, weights), expected)
    # Nothing is said of how the set's probability is shared out among its classes.
    shared = logits.clone()
    shared[:, [0, 3]] = logits[:, [3, 0]]
    torch.testing.assert_close(cross_entropy(shared, labels), cross_entropy(logits, labels))


def test_ohem_ignores_sets():
    logits, labels = batch()
    ignored, sets = labels.masked_fill(labels == 2, 255), labels.masked_fill(labels == 2, any_of({0, 2}))
    torch.testing.assert_close(ohem_sum(logits, sets), ohem_sum(logits, ignored))


def test_lovasz_takes_a_set_for_background_of_the_classes_outside_it():
    logits, labels = batch(classes=3)
    labels = labels.masked_fill(labels == 0, any_of({0, 2}))
    # Of class 1 it is known everywhere; class 2 may be anywhere in the set.
    total, images = lovasz_softmax_sum(logits, labels)
    losses = []
    for scores, truth in zip(logits, labels, strict=True):
        for label, known in ((1, truth != 255), (2, (truth == 1) | (truth == 2))):
            foreground = truth[known] == label
            errors, order = (foreground.float() - scores.softmax(0)[label][known]).abs().sort(descending=True)
            right = foreground[order].float()
            intersection, union = right.sum() - right.cumsum(0), right.sum() + (1 - right).cumsum(0)
            jaccard = 1 - intersection / union
            losses.append((errors * torch.cat((jaccard[:1], jaccard.diff()))).sum())
    assert images == 2
    torch.testing.assert_close(total, torch.stack(losses).view(2, 2).mean(dim=1).sum(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss", [cross_entropy_sum, lovasz_softmax_sum])
def test_pairs_have_weights(loss):
    logits, labels = batch()
    alone = [loss(logits[k : k + 1], labels[k : k + 1]) for k in (0, 1)]
    total, weight = loss(logits, labels, of_pairs=torch.tensor([0.5, 3.0]))
    torch.testing.assert_close(total, 0.5 * alone[0][0] + 3 * alone[1][0])
    torch.testing.assert_close(weight, 0.5 * alone[0][1] + 3 * alone[1][1])
    doubled = loss(logits, labels, of_pairs=torch.tensor([2.0, 2.0]))
    for found, whole in zip(doubled, loss(logits, labels), strict=True):
        torch.testing.assert_close(found, 2 * whole)


def test_a_box_asks_for_its_class_in_a_quarter_of_its_pixels():
    boxes = torch.zeros(1, 12, 12, dtype=torch.int64)
    boxes[0, 2:6, 2:6] = 2 + 256
    boxes[0, 0:3, 9:] = 1 + 512  # touches the border
    logits = torch.zeros(1, 4, 12, 12, requires_grad=True)
    total, number = box_sum(logits, boxes)
    assert number == 1
    torch.testing.assert_close(total, torch.tensor(math.log(4)))
    total.backward()
    assert (logits.grad[0, 2, 2:6, 2:6] < 0).sum() == 4
    assert (logits.grad[:, :, boxes[0] != 2 + 256] == 0).all()
    satisfied = torch.zeros(1, 4, 12, 12)
    satisfied[0, 2, 2:4, 2:4] = 20.0
    assert box_sum(satisfied, boxes)[0] < 1e-3
    total, number = box_sum(logits, boxes, torch.tensor([0.5]))
    assert number == 0.5
    torch.testing.assert_close(total, torch.tensor(0.5 * math.log(4)))


def test_no_boxes_cost_nothing_and_give_a_zero_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    total, number = box_sum(logits, torch.zeros(1, 4, 4, dtype=torch.int64))
    total.backward()
    assert (total, number) == (0, 0)
    assert logits.grad.abs().sum() == 0


def test_no_labels_cost_nothing_and_give_a_zero_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss == 0
    assert logits.grad.abs().sum() == 0


def test_sums_of_parts_give_the_mean_of_the_whole():
    logits, labels = torch.randn(4, 3, 4, 4), torch.randint(0, 3, (4, 4, 4))
    labels[0] = 255
    parts = [cross_entropy_sum(logits[i : i + 2], labels[i : i + 2]) for i in (0, 2)]
    total, weight = (sum(x) for x in zip(*parts, strict=True))
    torch.testing.assert_close(total / weight, cross_entropy(logits, labels))


@pytest.mark.parametrize("loss", [cross_entropy_sum, ohem_sum, lovasz_softmax_sum])
def test_every_loss_of_a_batch_without_labels_is_zero_over_zero_with_a_zero_gradient(loss):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    total, weight = loss(logits, torch.full((2, 4, 4), 255))
    total.backward()
    assert total.item() == 0
    assert weight.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def losses_and_classes(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    labelled = labels != 255
    return F.cross_entropy(logits, labels, ignore_index=255, reduction="none")[labelled], labels[labelled]


def test_ohem_keeps_the_pixels_below_the_threshold():
    logits, labels = batch()
    losses, _ = losses_and_classes(logits, labels)
    hard = torch.exp(-losses) < 0.6
    assert 20 < hard.sum() < losses.numel()
    total, weight = ohem_sum(logits, labels, threshold=0.6, minimum=20)
    torch.testing.assert_close(total, losses[hard].sum())
    assert weight == hard.sum()


def test_ohem_keeps_the_hardest_where_too_few_are_below_the_threshold():
    logits, labels = batch()
    losses, _ = losses_and_classes(logits, labels)
    total, weight = ohem_sum(logits, labels, threshold=0.01, minimum=50)
    assert (torch.exp(-losses) < 0.01).sum() < 50
    torch.testing.assert_close(total, losses.sort(descending=True).values[:50].sum())
    assert weight == 50


@pytest.mark.parametrize("minimum", [240, 241, 65536])
def test_ohem_of_a_batch_with_few_labels_is_the_cross_entropy(minimum):
    logits, labels = batch()
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert (labels != 255).sum() == 240
    kept = ohem_sum(logits, labels, weights, threshold=0.01, minimum=minimum)
    torch.testing.assert_close(kept, cross_entropy_sum(logits, labels, weights))


@pytest.mark.parametrize("threshold", [0.6, 0.01])
def test_ohem_class_weights_weigh_but_do_not_choose(threshold):
    logits, labels = batch()
    weights = torch.tensor([0.01, 1.0, 1.0, 50.0])
    losses, classes = losses_and_classes(logits, labels)
    hardest = losses.sort(descending=True).indices
    kept = hardest[: max(20, int((losses > -math.log(threshold)).sum()))]
    total, weight = ohem_sum(logits, labels, weights, threshold, minimum=20)
    torch.testing.assert_close(total, (losses * weights[classes])[kept].sum())
    torch.testing.assert_close(weight, weights[classes][kept].sum())


def test_ohem_gives_no_gradient_to_easy_pixels():
    logits, labels = batch()
    logits.requires_grad_()
    ohem_sum(logits, labels, threshold=0.6, minimum=20)[0].backward()
    kept = logits.grad.abs().sum(1) > 0
    truth = logits.softmax(1).gather(1, labels.clamp(max=3)[:, None])[:, 0]
    assert torch.equal(kept, (truth < 0.6) & (labels != 255))


def jaccard_loss(prediction: Tensor, labels: Tensor) -> float:
    """Mean of 1 - IoU over the classes of one label map, by sets."""
    labelled = labels != 255
    values = []
    for k in labels[labelled].unique().tolist():
        predicted, true = (prediction == k) & labelled, labels == k
        values.append(1 - ((predicted & true).sum() / (predicted | true).sum()).item())
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(5))
def test_lovasz_is_the_jaccard_loss_of_certain_predictions(seed):
    generator = torch.Generator().manual_seed(seed)
    # Class 4 occurs in no label map, but is predicted.
    labels = torch.randint(0, 4, (3, 6, 7), generator=generator)
    prediction = torch.randint(0, 5, (3, 6, 7), generator=generator)
    labels[0, :2] = 255
    labels[1] = torch.where(labels[1] == 2, 255, labels[1])
    labels[2] = 255
    total, images = lovasz_softmax_sum(vertex(prediction, 5), labels)
    assert images == 2
    assert total.item() == pytest.approx(sum(jaccard_loss(prediction[i], labels[i]) for i in (0, 1)), abs=1e-6)


def lovasz_extension(errors: list[float], foreground: list[bool]) -> float:
    """The Lovász extension of the Jaccard loss by its definition: sum over i of e_i (loss(i first) - loss(i - 1))."""
    order = sorted(range(len(errors)), key=lambda i: -errors[i])
    size, value, previous = sum(foreground), 0.0, 0.0
    for count, i in enumerate(order, start=1):
        wrong = order[:count]
        missed, extra = sum(foreground[j] for j in wrong), sum(not foreground[j] for j in wrong)
        loss = 1 - (size - missed) / (size + extra)
        value, previous = value + errors[i] * (loss - previous), loss
    return value


def test_lovasz_is_the_extension_of_the_jaccard_loss():
    logits, labels = batch(size=6)
    logits = logits.double()
    expected = 0.0
    for scores, truth in zip(logits.softmax(1), labels, strict=True):
        labelled = truth != 255
        values = []
        for k in truth[labelled].unique().tolist():
            foreground = truth[labelled] == k
            errors = (foreground.double() - scores[k][labelled]).abs()
            values.append(lovasz_extension(errors.tolist(), foreground.tolist()))
        expected += sum(values) / len(values)
    total, images = lovasz_softmax_sum(logits, labels)
    assert images == 2
    assert total.item() == pytest.approx(expected, abs=1e-6)


def test_lovasz_does_not_see_the_ignored_pixels():
    logits, labels = batch()
    changed = logits.clone()
    changed[:, :, :2] = 100.0 * torch.randn(2, 4, 2, 12)
    torch.testing.assert_close(lovasz_softmax_sum(changed, labels), lovasz_softmax_sum(logits, labels))
    changed.requires_grad_()
    lovasz_softmax_sum(changed, labels)[0].backward()
    assert torch.isfinite(changed.grad).all()
    assert torch.equal(changed.grad[:, :, :2], torch.zeros(2, 4, 2, 12))


def test_lovasz_gradient_leads_to_the_labels():
    logits, labels = batch()
    logits.requires_grad_()
    optimiser = torch.optim.Adam([logits], lr=0.5)
    for _ in range(60):
        optimiser.zero_grad()
        lovasz_softmax_sum(logits, labels)[0].backward()
        optimiser.step()
    labelled = labels != 255
    assert torch.equal(logits.argmax(1)[labelled], labels[labelled])


def test_lovasz_of_one_class_everywhere_is_finite():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    total, _ = lovasz_softmax_sum(logits, torch.ones(1, 4, 4, dtype=torch.int64))
    total.backward()
    # All pixels are foreground: each error weighs 1 / size.
    torch.testing.assert_close(total, 1 - logits.softmax(1)[:, 1].mean())
    assert torch.isfinite(logits.grad).all()


def test_binary_target():
    labels = torch.tensor([[[0, 1, 8], [255, 0, 3]]])
    target = binary_target(labels)
    assert target.tolist() == [[[0, 1, 1], [255, 0, 1]]]
    assert target.dtype == torch.int64


def boundary_by_definition(labels: Tensor, radius: int) -> Tensor:
    target = torch.empty_like(labels)
    height, width = labels.shape[1:]
    for b, y, x in torch.cartesian_prod(*(torch.arange(n) for n in labels.shape)).tolist():
        rows = slice(max(0, y - radius), min(height, y + radius + 1))
        columns = slice(max(0, x - radius), min(width, x + radius + 1))
        classes = set(labels[b, rows, columns].flatten().tolist()) - {255}
        own = labels[b, y, x]
        target[b, y, x] = 1 if len(classes) > 1 else 255 if own == 255 else 0
    return target


@pytest.mark.parametrize("radius", [1, 2, 3])
def test_boundary_target_by_definition(radius):
    labels = torch.zeros(2, 14, 17, dtype=torch.int64)
    labels[0, 3:8, 4:9] = 2
    labels[0, 5:, 12:] = 255
    labels[0, 6, 2:8] = 255
    labels[1, :, 9:] = 8
    labels[1, :4] = 255
    target = boundary_target(labels, radius)
    assert torch.equal(target, boundary_by_definition(labels, radius))
    assert target.dtype == torch.int64
    assert set(target.unique().tolist()) == {0, 1, 255}


def test_boundary_of_two_classes_is_a_band_on_both_sides():
    labels = torch.zeros(1, 5, 12, dtype=torch.int64)
    labels[..., 6:] = 3
    assert boundary_target(labels, radius=2)[0, 2].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    assert torch.equal(boundary_target(labels), boundary_target(labels, radius=3))


def test_edge_of_an_ignored_region_is_no_boundary():
    labels = torch.full((1, 8, 8), 4)
    labels[0, 2:5, 2:5] = 255
    assert torch.equal(boundary_target(labels), binary_target(labels).masked_fill(labels == 4, 0))


def test_ignored_line_between_two_classes_is_boundary():
    labels = torch.zeros(1, 5, 9, dtype=torch.int64)
    labels[..., 4] = 255
    labels[..., 5:] = 1
    assert boundary_target(labels, radius=2)[0, 2].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
