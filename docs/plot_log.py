"""Draw losses, task weights and validation scores of a training log: python docs/plot_log.py LOG.jsonl OUT.png."""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

FACTS = ("step", "epoch", "seconds", "lr")
WEIGHT = "weight/"


def main(log: Path, out: Path) -> None:
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    losses = [record for record in records if "validation" not in record]
    validations = [record for record in records if "validation" in record]
    names = list(dict.fromkeys(key for record in losses for key in record if key not in FACTS))
    panels = 3 if any(name.startswith(WEIGHT) for name in names) else 2
    figure, (left, *middle, right) = plt.subplots(1, panels, figsize=(5.5 * panels, 3.6), layout="constrained")

    steps = [record["step"] for record in losses]
    for name in names:
        axes = middle[0] if name.startswith(WEIGHT) else left
        values = [record.get(name) or float("nan") for record in losses]  # a stage may go without a term
        axes.plot(steps, values, label=name.removeprefix(WEIGHT), linewidth=1)
    left.set(yscale="log", xlabel="step", title="weighted training losses")
    left.legend()
    for axes in middle:
        axes.set(xlabel="step", ylim=(0, 2), title="task weights")
        axes.legend()

    minutes = [record["seconds"] / 60 for record in validations]
    for name in ("qabf", "vif", "miou"):
        right.plot(minutes, [record["validation"][name] for record in validations], label=name)
    right.set(xlabel="minutes", ylim=(0, None), title="validation")
    bits = right.twinx()
    bits.plot(minutes, [record["validation"]["mi"] for record in validations], "k--", linewidth=1)
    bits.set(ylim=(0, None), ylabel="mi (bits, dashed)")
    right.legend(loc="lower right")
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
