import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

from tectum.metrics import functional


def test_normalized_mutual_information_is_that_of_scikit_learn(triple, tensors):
    fused, *sources = triple
    expected = sum(normalized_mutual_info_score(source.ravel(), fused.ravel()) for source in sources)
    assert functional.normalized_mutual_information(*tensors).item() == pytest.approx(expected, rel=1e-10)


def test_cross_entropy_by_hand(triple, tensors):
    fused, *sources = (np.bincount(image.ravel(), minlength=256) / image.size for image in triple)
    expected = 0.0
    for source in sources:
        both = (source > 0) & (fused > 0)
        expected += (source[both] * np.log2(source[both] / fused[both])).sum() / 2
    assert functional.cross_entropy(*tensors).item() == pytest.approx(expected, rel=1e-10)


def test_cross_entropy_of_disjoint_levels_is_nothing():
    dark, bright = (torch.full((1, 1, 8, 8), level, dtype=torch.uint8) for level in (10, 200))
    assert functional.cross_entropy(bright, dark, dark).item() == 0


def test_qncie_by_hand(triple, tensors):
    matrix = np.eye(3)
    for row in range(3):
        for column in range(row):
            value = mutual_info_score(triple[row].ravel(), triple[column].ravel()) / math.log(256)
            matrix[row, column] = matrix[column, row] = value
    share = np.linalg.eigvalsh(matrix) / 3
    expected = 1 + (share * np.log(share)).sum() / math.log(256)
    assert functional.qncie(*tensors).item() == pytest.approx(expected, rel=1e-10)


def test_equal_images(tensors):
    image = tensors[0]
    assert functional.normalized_mutual_information(image, image, image).item() == pytest.approx(2, rel=1e-12)
    assert functional.cross_entropy(image, image, image).item() == 0


def test_stretching_moves_no_entropy(tensors):
    # Why it does not matter that some evaluators stretch images to their own range before they count grey levels.
    narrow = [(image // 3 + 40).to(image.dtype) for image in tensors]
    stretched = [
        ((image.double() - image.min()) / (image.max() - image.min()) * 255 + 0.5).floor().byte() for image in narrow
    ]
    assert any((image != wide).any() for image, wide in zip(narrow, stretched, strict=True))
    for metric in (functional.mutual_information, functional.normalized_mutual_information, functional.qncie):
        assert metric(*stretched).item() == pytest.approx(metric(*narrow).item(), rel=1e-12)
