"""Weights between the losses of several tasks, set during training."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal


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


class TaskBalance:
    """Weights of the tasks, from how far each one's loss has come down.

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

    The weights are 1 each until every task has its reference.

    Args:
        kind: rule, as above.
        tasks: names of the tasks.
        decay: of the moving average in a step; 0.99 looks back over about 100 steps.
        reference_steps: steps that make the reference. The default of 20 averages out most of the difference between
            batches, and is short against a warm-up, within which a loss hardly falls.
        temperature: of "softmax"; smaller tells the tasks further apart.
    """

    def __init__(
        self,
        kind: Literal["max_min", "equal", "softmax"],
        tasks: Sequence[str],
        decay: float = 0.99,
        reference_steps: int = 20,
        temperature: float = 1.0,
    ) -> None:
        self.kind = kind
        self.tasks = tuple(tasks)
        self.decay = decay
        self.reference_steps = reference_steps
        self.temperature = temperature
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
            if self._seen[task] < self.reference_steps:
                self._seen[task] += 1
                self._reference[task] += (loss - self._reference[task]) / self._seen[task]
                self._average[task] = self._reference[task]
            else:
                self._average[task] += (1 - self.decay) * (loss - self._average[task])
        if self.kind == "equal" or min(self._seen.values()) < self.reference_steps:
            return dict.fromkeys(self.tasks, 1.0)
        progress = [self._progress(task) for task in self.tasks]
        if self.kind == "max_min":
            weights = max_min_shares(progress, capacity=len(progress))
        else:
            exponentials = [math.exp((r - max(progress)) / self.temperature) for r in progress]
            weights = [len(progress) * e / sum(exponentials) for e in exponentials]
        return dict(zip(self.tasks, weights, strict=True))

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
