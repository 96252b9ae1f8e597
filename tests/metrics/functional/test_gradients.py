import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, sobel

from tectum.errors import InputError
from tectum.metrics import functional


def test_edge_intensity_is_that_of_scipy(triple, tensors):
    image = triple[0].astype(float)
    expected = np.hypot(sobel(image, 0, mode="nearest"), sobel(image, 1, mode="nearest")).mean()
    assert functional.edge_intensity(tensors[0]).item() == pytest.approx(expected, rel=1e-6)


def test_edge_intensity_of_a_step_by_hand():
    step = torch.tensor([[0, 0, 1, 1]] * 3, dtype=torch.uint8)[None, None]
    assert functional.edge_intensity(step).item() == pytest.approx(4 * 6 / 12)
    assert functional.edge_intensity(torch.full((1, 1, 1, 1), 9, dtype=torch.uint8)).item() == 0


def losses_by_hand(fused, *sources):
    """Lost, new and kept edge information, pixel by pixel."""
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8

    def edges(image):
        across, along = (correlate(image.astype(float), weights, mode="mirror") for weights in (kernel, kernel.T))
        angle = [math.atan(x / y) if y else math.copysign(math.pi / 2, x) if x else 0.0
                 for x, y in zip(across.ravel(), along.ravel(), strict=True)]  # fmt: skip
        return np.hypot(across, along).ravel(), np.array(angle)

    (strength, angle), *others = map(edges, (fused, *sources))
    lost = new = kept = whole = 0.0
    for pixel in range(len(strength)):
        terms, weights = [], []
        for other_strength, other_angle in others:
            one, two = sorted((strength[pixel], other_strength[pixel]))
            ratio = one / two if one > 0 else 0.0
            turn = abs(abs(other_angle[pixel] - angle[pixel]) - math.pi / 2) * 2 / math.pi
            strong = 0.9999 / (1 + math.exp(-19 * (ratio - 0.5)))
            terms.append(math.sqrt(strong * 0.9995 / (1 + math.exp(-22 * (turn - 0.5)))))
            weights.append(other_strength[pixel] ** 1.5 if other_strength[pixel] >= 2 else 0.001)
        missing = sum((1 - term) * weight for term, weight in zip(terms, weights, strict=True))
        if all(strength[pixel] > other[pixel] for other, _ in others):
            new += missing
        else:
            lost += missing
        kept += sum(term * weight for term, weight in zip(terms, weights, strict=True))
        whole += sum(weights)
    return lost / whole, new / whole, kept / whole


def test_labf_and_nabf_by_hand(triple, tensors):
    fused = triple[0].copy()
    fused[18:22, 50:58] = 255  # an artefact
    lost, new, kept = losses_by_hand(fused, *triple[1:])
    images = (torch.from_numpy(fused)[None, None], *tensors[1:])
    assert new > 0.005
    assert functional.labf(*images).item() == pytest.approx(lost, rel=1e-9)
    assert functional.nabf(*images).item() == pytest.approx(new, rel=1e-9)
    assert lost + new + kept == pytest.approx(1)


def test_labf_and_nabf_of_the_extremes(tensors):
    fused, visible, infrared = tensors
    flat = torch.full_like(visible, 90)
    assert functional.labf(visible, visible, visible).item() < 0.001
    assert functional.nabf(visible, visible, visible).item() == 0
    assert functional.labf(flat, visible, infrared).item() > 0.9  # everything lost
    assert functional.nabf(flat, visible, infrared).item() == 0
    assert functional.nabf(visible, flat, flat).item() > 0.5  # everything made up
    swapped = functional.nabf(fused, infrared, visible)
    assert swapped.item() == pytest.approx(functional.nabf(fused, visible, infrared).item(), rel=1e-12)


def test_reflection_needs_two_pixels():
    row = torch.zeros(1, 1, 1, 9)
    for metric in (functional.labf, functional.nabf):
        with pytest.raises(InputError, match="2x2"):
            metric(row, row, row)


def test_seam_is_its_definition_written_out(triple, tensors):
    fused = np.where(np.indices(triple[0].shape)[1] < 40, triple[1], triple[2])  # cut from one source to the other
    strengths = [np.hypot(*np.gradient(image.astype(float))) for image in (fused, *triple[1:])]
    largest = np.maximum(*strengths[1:])
    expected = np.maximum(strengths[0] - largest - 1, 0).sum() / largest.sum()
    images = (torch.from_numpy(fused)[None, None], *tensors[1:])
    assert expected > 0.005
    assert functional.seam(*images).item() == pytest.approx(expected, rel=1e-6)


def test_no_source_has_a_seam(tensors):
    _, visible, infrared = tensors
    for image in (visible, infrared, visible // 2, torch.full_like(visible, 9)):
        assert functional.seam(image, visible, infrared).item() == 0
    flat = torch.full_like(visible, 100)
    assert functional.seam(flat, flat, flat).item() == 0
    assert functional.seam(visible, flat, flat).item() > 100
