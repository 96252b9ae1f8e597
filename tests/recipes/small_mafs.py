"""Settings of short runs and a step that the tests of both MAFS recipes and of masked pretraining share."""

from tectum.recipes.loop import differentiate
from tectum.recipes.mafs_pretrain import pretraining_terms


def pretraining_step(autoencoder, batch, config, accelerator):
    """Leave the gradient of L in the parameters; gives its terms."""
    terms = pretraining_terms(autoencoder, batch, config, accelerator)
    differentiate(autoencoder, sum(terms.values()), accelerator)
    return {name: term.detach() for name, term in terms.items()}


def small_sections(scenes, *changes):
    """Sections of a config: three epochs of two steps on small scenes, with the smallest network, then the changes."""
    sections = {
        "model": {"name": "mafs_r18"},
        "data": {
            "train": [{"dataset": "msrs", "root": scenes, "split": "train"}],
            "validation": [{"dataset": "msrs", "root": scenes, "split": "test"}],
            "workers": 0,
        },
        # Not Adam: its first steps follow the signs of gradients, which differ between CPUs where they are near zero.
        "optimiser": {"name": "sgd", "weight_decay": 0.01, "warmup_steps": 3},
        "run": {"epochs": 3, "batch": 3, "validate_every": 3, "log_every": 1},
    }
    for change in changes:
        for name, value in change.items():
            sections[name] = sections.get(name, {}) | value if isinstance(value, dict) else value
    return sections
