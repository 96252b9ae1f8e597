"""Training and validation pairs of a config, and the order in which they come."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from tectum.data.datasets import pair_table
from tectum.data.pair import PairPaths, Use
from tectum.data.transforms import PairDataset, Sample, StepSampler, derive_seed
from tectum.errors import ConfigError
from tectum.recipes.config import DataConfig, RunConfig, Source


def training_tables(data: DataConfig, config: RunConfig) -> tuple[list[PairPaths], list[PairPaths]]:
    """(training pairs with repeats, validation pairs), built without reading pixels.

    Of validation pairs whose label maps look for some classes only, the recipes score the pictures alone.
    """
    training: list[PairPaths] = []
    validation = [_as_used(pair, source) for source in data.validation for pair in source_table(source)]
    for source in data.train:
        for pair in source_table(source):
            if pair.label is not None and hash_fraction(pair.name) < data.holdout:
                validation.append(_as_used(pair, source))
            else:
                training += [_as_used(pair, source)] * source.repeat
    if len(training) < config.batch:
        raise ConfigError(f"there are {len(training)} training pairs, fewer than run.batch={config.batch}: add data")
    return training, validation


def source_table(source: Source) -> list[PairPaths]:
    """The pairs of a source, once each, without reading pixels."""
    table = pair_table(source.root, source.dataset, source.split)
    if source.boxes and source.looked_for is None and any(pair.label is None and pair.boxes for pair in table):
        raise ConfigError(
            f"pairs of '{source.root}' have boxes and no label map: set looked_for of this source to the classes of "
            "the boxes, [1, 2, 3] for MSRS"
        )
    if not source.labelled_only:
        return table
    return [pair for pair in table if pair.label is not None or (source.boxes and pair.boxes is not None)]


def _as_used(pair: PairPaths, source: Source) -> PairPaths:
    """A pair with no more of its labels than training sees."""
    if not source.labels:
        return replace(pair, label=None)
    return replace(pair, use=Use(source.looked_for, source.boxes, source.weight, source.scale))


def hash_fraction(name: str) -> float:
    """A number in [0, 1) that depends on the name alone, so that a pair stays on its side when others come or go."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def batches(
    dataset: PairDataset, config: RunConfig, steps: range, workers: int, accelerator: Accelerator
) -> Iterator[tuple[int, Sample]]:
    """(step, this process's share of its batch), with the global generators seeded for that step."""
    sampler = StepSampler(
        len(dataset.table), config.batch, config.seed, steps, accelerator.process_index, accelerator.num_processes
    )
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        worker_init_fn=_one_thread,
        prefetch_factor=4 if workers else None,
        pin_memory=accelerator.device.type == "cuda",
    )
    for step, batch in zip(steps, loader, strict=True):
        torch.manual_seed(derive_seed(config.seed, step, 0, accelerator.process_index))
        yield step, Sample(*(x.to(accelerator.device, non_blocking=True) for x in batch))


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
