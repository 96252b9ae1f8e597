"""Weights between the losses of several tasks, set during training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from tectum.section import Section


def max_min_shares(demands: Sequence[float], capacity: float) -> list[float]:
    """Max-min fair allocation of a capacity by water filling, with nothing left over.

    The demands are served from the smallest up: each gets what it asks for, but no more than an equal part of what is
    left. A capacity beyond all the demands goes to the largest one, in equal parts where several tie. Of two, the
    smaller demand d gets min(d, capacity / 2) and the other the rest.

    Args:
        demands: at least 0 each.
        capacity: what is shared out.

    Returns:
        One share for each demand, in their order; they sum to `capacity`.
    """
    shares = [0.0] * len(demands)
    left = capacity
    ascending = sorted(range(len(demands)), key=lambda i: demands[i])
    for served, i in enumerate(ascending):
        shares[i] = min(demands[i], left / (len(demands) - served))
        left -= shares[i]
    largest = [i for i in ascending if demands[i] == max(demands)]
    for i in largest:
        shares[i] += left / len(largest)
    return shares


class Balance(Section):
    """The rule by which tasks are weighted, from how far each one's loss has come down.

    The progress of task k is r_k = average of L_k / its reference: an exponential moving average over the mean loss
    of its first steps, 1 at the start and falling as the task is learnt. From it come the weights, which sum to the
    number of tasks n and lie in [0, n]:

    - "max_min": `max_min_shares` of a budget of n between demands r_k. Of two tasks, the one that is further along
      gets min(r, 1), and the other 2 minus that. The weights jump where the order of the two changes below 1 (from
      0.3 : 1.7 to 1.7 : 0.3 at r = 0.3); equal r give equal weights.
    - "softmax": n * softmax(r / temperature).
    - "equal": 1 each.

    MAFS names the max-min fairness allocation principle for the factor between its two tasks without a public
    equation; "max_min" is this library's reading of it.

    Attributes:
        kind: rule, as above.
        decay: of the moving average in a step; 0.99 looks back over about 100 steps.
        reference_steps: steps that make the reference. The default of 20 averages out most of the difference between
            batches, and is short against a warm-up, within which a loss hardly falls.
        temperature: of "softmax"; smaller tells the tasks further apart.
    """

    kind: Literal["max_min", "equal", "softmax"] = "max_min"
    decay: float = Field(0.99, ge=0, lt=1)
    reference_steps: int = Field(20, ge=1)
    temperature: float = Field(1.0, gt=0)

    def weights(self, progress: Sequence[float]) -> list[float]:
        """The weights of the tasks, from the progress of each."""
        if self.kind == "equal":
            return [1.0] * len(progress)
        if self.kind == "max_min":
            return max_min_shares(progress, capacity=len(progress))
        exponentials = [math.exp((r - max(progress)) / self.temperature) for r in progress]
        return [len(progress) * e / sum(exponentials) for e in exponentials]


class TaskBalance:
    """Weights of the tasks during a training: a rule, and what it has seen of their losses.

    The weights are 1 each until every task has its reference.

    Args:
        rule: see `Balance`.
        tasks: names of the tasks.
    """

    def __init__(self, rule: Balance, tasks: Sequence[str]) -> None:
        self.rule = rule
        self.tasks = tuple(tasks)
        self._seen = dict.fromkeys(self.tasks, 0)
        self._reference = dict.fromkeys(self.tasks, 0.0)
        self._average = dict.fromkeys(self.tasks, 0.0)

    def update(self, losses: Mapping[str, float]) -> dict[str, float]:
        """Takes in the losses of a step and gives the weights of all tasks.

        Args:
            losses: unweighted loss of each task, at least 0, the same on every process. A task that had none in this
                step (a batch without labels) is left out and stays as it was.

        Returns:
            One weight for each task.
        """
        for task, loss in losses.items():
            if self._seen[task] < self.rule.reference_steps:
                self._seen[task] += 1
                self._reference[task] += (loss - self._reference[task]) / self._seen[task]
                self._average[task] = self._reference[task]
            else:
                self._average[task] += (1 - self.rule.decay) * (loss - self._average[task])
        if min(self._seen.values()) < self.rule.reference_steps:
            return dict.fromkeys(self.tasks, 1.0)
        return dict(zip(self.tasks, self.rule.weights([self._progress(task) for task in self.tasks]), strict=True))

    def _progress(self, task: str) -> float:
        # A loss that is switched off is 0 from the start; it needs no weight.
        return self._average[task] / self._reference[task] if self._reference[task] > 0 else 0.0

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to go on exactly: numbers in dictionaries, nothing else."""
        return {
            "seen": dict(self._seen),
            "reference": dict(self._reference),
            "average": dict(self._average),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave, for the same tasks."""
        self._seen = dict(state["seen"])
        self._reference = dict(state["reference"])
        self._average = dict(state["average"])
