import io
import math
import random

import pytest
import torch

from tectum.losses.balance import Balance, TaskBalance, max_min_shares

TASKS = ("fusion", "segmentation")


@pytest.mark.parametrize(
    ("demands", "shares"),
    [
        ([0.3, 1.0], [0.3, 1.7]),
        ([1.0, 0.3], [1.7, 0.3]),
        ([0.2, 0.5], [0.2, 1.8]),
        ([1.5, 4.0], [1.0, 1.0]),
        ([0.6, 9.0], [0.6, 1.4]),
        ([0.4, 0.4], [1.0, 1.0]),
        ([0.0, 0.0], [1.0, 1.0]),
        ([2.0], [2.0]),
    ],
)
def test_shares_of_a_capacity_of_two(demands, shares):
    assert max_min_shares(demands, 2.0) == pytest.approx(shares)


def filled(demands: list[float], capacity: float, drops: int = 20000) -> list[float]:
    """Max-min fairness by its definition: drop by drop to whoever has least and still asks, then to the largest."""
    shares, drop = [0.0] * len(demands), capacity / drops
    for _ in range(drops):
        asking = [i for i, d in enumerate(demands) if shares[i] + drop / 2 < d]
        lowest = min(asking, key=lambda i: shares[i]) if asking else demands.index(max(demands))
        shares[lowest] += drop
    return shares


@pytest.mark.parametrize("seed", range(15))
def test_shares_are_those_of_progressive_filling(seed):
    draw = random.Random(seed)
    demands = [draw.uniform(0, 2) for _ in range(draw.randint(2, 5))]
    capacity = draw.uniform(0.5, 6)
    shares = max_min_shares(demands, capacity)
    assert shares == pytest.approx(filled(demands, capacity), abs=1e-3)
    assert sum(shares) == pytest.approx(capacity)


def run(balance: TaskBalance, fusion: list[float], segmentation: list[float]) -> list[dict[str, float]]:
    return [balance.update({"fusion": f, "segmentation": s}) for f, s in zip(fusion, segmentation, strict=True)]


def falling(start: float, end: float, steps: int) -> list[float]:
    """A loss that stays at `start` for 20 steps, and goes to `end` exponentially."""
    return [end + (start - end) * math.exp(-max(0, i - 20) / 50) for i in range(steps)]


def test_the_task_that_stalls_gets_the_weight():
    weights = run(TaskBalance(Balance(kind="max_min"), TASKS), falling(8.0, 2.4, 1500), [2.2] * 1500)
    segmentation = [w["segmentation"] for w in weights]
    assert segmentation[:20] == [1.0] * 20
    assert segmentation == pytest.approx(sorted(segmentation))
    assert weights[-1] == pytest.approx({"fusion": 0.3, "segmentation": 1.7}, abs=1e-3)
    for w in weights:
        assert sum(w.values()) == pytest.approx(2)
        assert all(0 <= value <= 2 for value in w.values())


def test_a_task_that_gets_worse_cannot_starve_the_other():
    weights = run(TaskBalance(Balance(kind="max_min"), TASKS), [1.0] * 500, [1.0] * 20 + [50.0] * 480)
    assert weights[-1] == pytest.approx({"fusion": 1.0, "segmentation": 1.0})


def test_tasks_that_fall_alike_weigh_alike():
    weights = run(TaskBalance(Balance(kind="max_min"), TASKS), falling(8.0, 2.0, 400), falling(4.0, 1.0, 400))
    assert weights[-1] == pytest.approx({"fusion": 1.0, "segmentation": 1.0})


@pytest.mark.parametrize("kind", ["max_min", "softmax"])
def test_weights_of_noisy_losses_stay_within_bounds(kind):
    draw = random.Random(0)
    noise = [[draw.uniform(0, 5) for _ in range(300)] for _ in TASKS]
    for w in run(TaskBalance(Balance(kind=kind, decay=0.5, temperature=0.1), TASKS), *noise):
        assert sum(w.values()) == pytest.approx(2)
        assert all(0 <= value <= 2 for value in w.values())


def test_average_starts_at_the_reference_and_moves_by_its_decay():
    balance = TaskBalance(Balance(kind="max_min", decay=0.9, reference_steps=4), TASKS)
    fusion = [1.0, 2.0, 3.0, 2.0]
    assert run(balance, fusion, [1.0] * 4) == [{"fusion": 1.0, "segmentation": 1.0}] * 4
    # Reference 2, then an average of 0.9 * 2 + 0.1 * 0 and 0.9 * 1.8.
    assert balance.update({"fusion": 0.0, "segmentation": 1.0}) == pytest.approx({"fusion": 0.9, "segmentation": 1.1})
    assert balance.update({"fusion": 0.0, "segmentation": 1.0}) == pytest.approx({"fusion": 0.81, "segmentation": 1.19})


def test_an_absent_task_keeps_its_average():
    balance = TaskBalance(Balance(kind="max_min", decay=0.5, reference_steps=2), TASKS)
    run(balance, [1.0] * 2, [1.0] * 2)
    assert balance.update({"segmentation": 0.6})["segmentation"] == pytest.approx(0.8)
    for _ in range(5):
        assert balance.update({"fusion": 1.0}) == pytest.approx({"fusion": 1.2, "segmentation": 0.8})


def test_weights_are_one_until_every_task_has_its_reference():
    balance = TaskBalance(Balance(kind="max_min", decay=0.5, reference_steps=3), TASKS)
    for loss in (1.0, 1.0, 1.0, 0.1, 0.1):
        assert balance.update({"fusion": loss}) == {"fusion": 1.0, "segmentation": 1.0}
    weights = run(balance, [0.1] * 3, [5.0] * 3)
    assert weights[1] == {"fusion": 1.0, "segmentation": 1.0}
    assert weights[2]["fusion"] < 0.2


@pytest.mark.parametrize("steps", [5, 60])
def test_resumed_training_goes_on_exactly(steps):
    draw = random.Random(1)
    losses = [[draw.uniform(0.5, 1.5) for _ in range(120)] for _ in TASKS]
    whole = TaskBalance(Balance(kind="max_min"), TASKS)
    expected = run(whole, *losses)
    first = TaskBalance(Balance(kind="max_min"), TASKS)
    run(first, *(x[:steps] for x in losses))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = TaskBalance(Balance(kind="max_min"), TASKS)
    second.load_state_dict(torch.load(file, weights_only=True))
    run(first, *(x[:3] for x in losses))  # must not move what was saved
    assert run(second, *(x[steps:] for x in losses)) == expected[steps:]
    assert second.state_dict() == whole.state_dict()


def test_state_is_a_copy():
    balance = TaskBalance(Balance(kind="max_min", reference_steps=2), TASKS)
    state = balance.state_dict()
    run(balance, [1.0], [1.0])
    assert state["seen"] == {"fusion": 0, "segmentation": 0}


def test_equal():
    weights = run(
        TaskBalance(Balance(kind="equal", reference_steps=2), TASKS), [1.0, 1.0, 0.1, 0.1], [1.0, 1.0, 5.0, 5.0]
    )
    assert weights == [{"fusion": 1.0, "segmentation": 1.0}] * 4


def test_softmax():
    balance = TaskBalance(Balance(kind="softmax", decay=0.0, reference_steps=1, temperature=0.5), TASKS)
    assert balance.update({"fusion": 4.0, "segmentation": 2.0}) == {"fusion": 1.0, "segmentation": 1.0}
    weights = balance.update({"fusion": 2.0, "segmentation": 2.0})
    expected = 2 * torch.softmax(torch.tensor([0.5, 1.0], dtype=torch.float64) / 0.5, 0)
    assert [weights[task] for task in TASKS] == pytest.approx(expected.tolist())
    extreme = balance.update({"fusion": 1e6, "segmentation": 2.0})
    assert extreme == pytest.approx({"fusion": 2.0, "segmentation": 0.0})


def test_a_loss_that_is_switched_off_gets_no_weight():
    weights = run(TaskBalance(Balance(kind="max_min", reference_steps=2), TASKS), [0.0] * 3, [1.0] * 3)
    assert weights[-1] == {"fusion": 0.0, "segmentation": 2.0}
