import pytest
import torch
from torch import Tensor

from tectum.losses.distillation import channel_distillation


def maps(seed: int, *shape: int) -> Tensor:
    return 5 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def direct(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """The formula term by term in float64."""
    value = 0.0
    for b in range(student.shape[0]):
        for k in range(student.shape[1]):
            s, t = (torch.exp(x[b, k].double() / temperature) for x in (student, teacher))
            s, t = s / s.sum(), t / t.sum()
            value += (t * torch.log(t / s)).sum().item()
    return value * temperature**2 / (student.shape[0] * student.shape[1])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_the_formula(temperature):
    student, teacher = maps(0, 2, 3, 7, 5), maps(1, 2, 3, 7, 5)
    loss = channel_distillation(student, teacher, temperature)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(direct(student, teacher, temperature), rel=1e-5)


def test_default_temperature_is_four():
    student, teacher = maps(0, 1, 2, 4, 4), maps(1, 1, 2, 4, 4)
    assert channel_distillation(student, teacher) == channel_distillation(student, teacher, 4.0)


def test_equal_maps_cost_nothing_and_pull_nowhere():
    student = maps(0, 2, 3, 8, 8).requires_grad_()
    loss = channel_distillation(student, student.detach().clone())
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(student.grad, torch.zeros_like(student), atol=1e-6, rtol=0)


def test_a_constant_per_channel_changes_nothing():
    student, teacher = maps(0, 2, 3, 8, 8), maps(1, 2, 3, 8, 8)
    shifted = channel_distillation(student + maps(2, 2, 3, 1, 1), teacher + maps(3, 2, 3, 1, 1))
    torch.testing.assert_close(shifted, channel_distillation(student, teacher))


def test_the_teacher_gets_no_gradient():
    student, teacher = maps(0, 1, 2, 4, 4).requires_grad_(), maps(1, 1, 2, 4, 4).requires_grad_()
    channel_distillation(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_extreme_logits_stay_finite():
    student, teacher = 1e4 * maps(0, 1, 2, 32, 32).sign(), 1e4 * maps(1, 1, 2, 32, 32).sign()
    student.requires_grad_()
    loss = channel_distillation(student, teacher)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 1e3
    assert torch.isfinite(student.grad).all()
