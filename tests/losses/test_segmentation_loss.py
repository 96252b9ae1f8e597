import torch
import torch.nn.functional as F

from tectum.losses.segmentation import cross_entropy, cross_entropy_sum


def test_equals_torch_where_there_are_labels():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 5, 6), torch.randint(0, 4, (2, 5, 6))
    labels[0, :2] = 255
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    torch.testing.assert_close(cross_entropy(logits, labels), F.cross_entropy(logits, labels, ignore_index=255))
    torch.testing.assert_close(
        cross_entropy(logits, labels, weights), F.cross_entropy(logits, labels, weights, ignore_index=255)
    )


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
