import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from tectum.errors import ConfigError, InputError
from tectum.metrics import CalibrationScores


@pytest.mark.parametrize("bins", [5, 15])
def test_equals_torchmetrics(bins):
    torch.manual_seed(0)
    probabilities, truth = torch.randn(4000, 6).mul(2).softmax(1), torch.randint(0, 6, (4000,))
    confidence, labels = probabilities.max(dim=1)
    theirs, ours = MulticlassCalibrationError(6, n_bins=bins), CalibrationScores(bins)
    for part in (slice(0, 900), slice(900, 4000)):
        theirs.update(probabilities[part], truth[part])
        ours.update(confidence[part], labels[part] == truth[part])
    torch.testing.assert_close(ours.compute()["ece"].float(), theirs.compute(), atol=1e-5, rtol=1e-4)


def test_certain_and_right_is_no_error_and_certain_and_wrong_is_all():
    for right, expected in ((True, 0.0), (False, 1.0)):
        scores = CalibrationScores()
        scores.update(torch.ones(5, 4), torch.full((5, 4), right))
        assert scores.compute()["ece"] == expected
        assert scores.compute()["pixels"].tolist() == [0] * 14 + [20]


def test_bad_arguments_are_one_sentence():
    with pytest.raises(ConfigError, match="bin"):
        CalibrationScores(0)
    with pytest.raises(InputError, match="one shape"):
        CalibrationScores().update(torch.ones(3), torch.ones(4))
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        CalibrationScores().update(torch.full((3,), 1.5), torch.ones(3))
