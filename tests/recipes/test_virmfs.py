import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

import tectum
from tectum.data.datasets import dataset_info
from tectum.data.pair import Use
from tectum.data.transforms import Sample
from tectum.errors import ConfigError, InputError, WeightsError
from tectum.losses.fusion import (
    detailed_intensity_loss,
    directional_gradient_loss,
    gradient_loss,
    intensity_loss,
    saliency_mask,
)
from tectum.losses.segmentation import lovasz_softmax_sum
from tectum.models.base import luminance
from tectum.models.virmfs import ViRMFS
from tectum.recipes.loop import differentiate
from tectum.recipes.pairs import training_tables
from tectum.recipes.reading import CONFIGS, read_config
from tectum.recipes.virmfs import (
    FusionBranch,
    LossConfig,
    MetaConfig,
    Objective,
    SegmentationBranch,
    Virmfs,
    VirmfsConfig,
    fusion_loss,
    meta_branch,
    meta_gradients,
    train,
)


def full_step(model, batch, loss, class_weights, accelerator):
    """Leave the gradient of L in the parameters; gives its terms."""
    terms = Objective(loss, class_weights, accelerator)(model, batch)
    differentiate(model, sum(terms.values()), accelerator)
    return {name: term.detach() for name, term in terms.items()}


def small_config(scenes, *overrides):
    """Two epochs of three steps on small scenes, with everything switched on."""
    return read_config(
        VirmfsConfig,
        CONFIGS / "virmfs_b0.yaml",
        [
            f"data.train.0.root={scenes}",
            "data.holdout=0",
            f"data.validation=[{{dataset: msrs, root: '{scenes}', split: train}}]",
            "data.augmentation.crop=64",
            "data.workers=0",
            "meta.warmup_epochs=0",
            "meta.period=1",
            "second_full_step=true",
            "optimiser.warmup_steps=2",
            "run.epochs=2",
            "run.batch=2",
            "run.precision=float32",
            "run.validate_every=2",
            "run.log_every=1",
            *overrides,
        ],
    )


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Epochs 0 to 9 with warm-up 1 and period 3.
        ("first_release", [None, None, None, "segmentation", None, None, "fusion", None, None, "segmentation"]),
        ("second_release", [None, "fusion", None, None, "segmentation", None, None, "fusion", None, None]),
    ],
)
def test_meta_steps_come_in_the_published_epochs(schedule, expected):
    assert [meta_branch(MetaConfig(schedule=schedule), epoch) for epoch in range(10)] == expected


def test_no_meta_steps_when_switched_off():
    assert {meta_branch(MetaConfig(enabled=False), epoch) for epoch in range(20)} == {None}


class Quadratic(torch.nn.Module):
    """A branch with L(θ) = ½ Σ (x·θ - y)², whose meta gradient is known in closed form."""

    role = "fusion"

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([0.3, -0.7], dtype=torch.float64))
            self.untouched = torch.nn.Parameter(torch.zeros(1))

        def encode(self, x, y):
            return x

        def role(self, role):
            return {"weight": self.weight} if role == "fusion" else {}

    def __init__(self):
        super().__init__()
        self.model = self.Model()

    def forward(self, x, batch):
        return (x @ self.model.weight - batch.infrared).square().sum() / 2


def test_meta_gradient_is_the_second_order_one():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((6, 2), (6,)))
    branch, inner_lr = Quadratic(), 0.1
    gradients = meta_gradients(branch, Sample(x, y, *[torch.zeros(6)] * 4), inner_lr)
    assert list(gradients) == ["model.weight"]
    theta, hessian = branch.model.weight.detach(), x[:3].T @ x[:3]
    adapted = theta - inner_lr * (x[:3].T @ (x[:3] @ theta - y[:3]))
    first_order = x[3:].T @ (x[3:] @ adapted - y[3:])
    torch.testing.assert_close(gradients["model.weight"], first_order - inner_lr * hessian @ first_order)
    assert not torch.allclose(gradients["model.weight"], first_order, rtol=1e-2)


@pytest.mark.parametrize("kind", ["fusion", "segmentation"])
def test_meta_gradient_with_a_vanishing_inner_step_is_the_gradient_of_the_query(kind, random_batch):
    torch.manual_seed(0)
    model = tectum.create_model("virmfs_b0", drop_path=0.0).eval()
    fusion = kind == "fusion"
    branch = FusionBranch(model, LossConfig()) if fusion else SegmentationBranch(model, 2.0, None)
    batch = random_batch(4)
    gradients = meta_gradients(branch, batch, 1e-12)
    query = Sample(*(x[2:] for x in batch))
    branch(model.encode(query.visible, query.infrared), query).backward()
    expected = {f"model.{name}": p.grad for name, p in model.role(kind).items()}
    assert gradients.keys() == expected.keys()
    assert any("fusion_head" in name for name in expected) == fusion
    assert not any("backbone" in name for name in expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_batch_of_one_is_support_and_query(random_batch):
    model = tectum.create_model("virmfs_b0")
    gradients = meta_gradients(FusionBranch(model, LossConfig()), random_batch(1), 1e-5)
    assert all(torch.isfinite(g).all() for g in gradients.values())


def test_every_parameter_gets_a_gradient_in_a_full_step(random_batch):
    torch.manual_seed(0)
    model = tectum.create_model("virmfs_b0", drop_path=0.0)
    terms = full_step(model, random_batch(), LossConfig(), None, Accelerator(cpu=True))
    assert set(terms) == {"gradient", "intensity", "segmentation"}
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_pairs_without_labels_train_fusion_alone(random_batch):
    model = tectum.create_model("virmfs_b0")
    batch = random_batch()
    batch.labels.fill_(255)
    terms = full_step(model, batch, LossConfig(), None, Accelerator(cpu=True))
    assert terms["segmentation"] == 0
    assert model.segmentation_head.prediction.weight.grad.abs().sum() == 0
    assert model.fusion_head.prediction.weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_expected_losses(scenes, tmp_path, log_of):
    """Losses of a fixed tiny run; a change here means that training itself has changed."""
    train(small_config(scenes), tmp_path)
    records = [record for record in log_of(tmp_path) if "validation" not in record]
    assert [record["step"] for record in records] == list(range(1, 7))
    for name, expected in EXPECTED_LOSSES.items():
        assert [record[name] for record in records] == pytest.approx(expected, rel=0.02), name
    validation = log_of(tmp_path)[-1]["validation"]
    assert {"qabf", "mi", "vif", "miou"} <= set(validation)


EXPECTED_LOSSES = {
    "gradient": [4.7544, 4.5711, 4.0820, 4.2114, 3.6335, 4.9681],
    "intensity": [15.0688, 11.7012, 6.8547, 7.7720, 6.6415, 10.2401],
    "segmentation": [12.2720, 11.9290, 11.0293, 9.2888, 9.3588, 9.0857],
}


@pytest.mark.slow
def test_run_directory_holds_what_explains_it(scenes, tmp_path):
    train(small_config(scenes, "run.epochs=1", "run.validate_every=1"), tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.yaml", "environment.json", "log.jsonl", "tensorboard", "checkpoint.pt", "best", "last"} == names
    assert read_config(VirmfsConfig, tmp_path / "config.yaml").run.epochs == 1
    assert json.loads((tmp_path / "environment.json").read_text())["packages"]["torch"] in torch.__version__
    metadata = tectum.load(tmp_path / "last").metadata
    assert metadata["dataset"] == "msrs"
    assert len(metadata["class_names"]) == len(metadata["palette"]) == 9


@pytest.mark.slow
def test_killed_and_resumed_gives_the_uninterrupted_weights(scenes, whole_and_broken, assert_same_weights):
    config = small_config(scenes, "run.epochs=4", "run.checkpoint_minutes=0.0001", "run.validate_every=1")
    whole, broken = whole_and_broken(config, kills=(2, 7))
    assert_same_weights(whole / "last", broken / "last")
    assert_same_weights(whole / "best", broken / "best")


@pytest.mark.slow
def test_same_seed_same_weights_and_workers_do_not_matter(scenes, tmp_path, assert_same_weights):
    train(small_config(scenes, "run.epochs=1"), tmp_path / "a")
    # In a process of its own: one in which OpenVINO has run may crash when it is forked.
    config = tmp_path / "workers.yaml"
    config.write_text(json.dumps(small_config(scenes, "run.epochs=1", "data.workers=2").model_dump(mode="json")))
    command = [sys.executable, "-m", "tectum", "train", "virmfs", "--config", config, "--out", tmp_path / "b"]
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    assert_same_weights(tmp_path / "a" / "last", tmp_path / "b" / "last")
    train(small_config(scenes, "run.epochs=1", "run.seed=1"), tmp_path / "c")
    first, other = (tectum.load(tmp_path / name / "last").state_dict() for name in ("a", "c"))
    assert not torch.equal(first["fusion_head.fuse.weight"], other["fusion_head.fuse.weight"])


TWO_PROCESSES = """
import sys
import torch
torch.set_num_threads(1)
from accelerate import Accelerator
import tectum
from tectum.data.transforms import Sample
from tectum.recipes.loop import differentiate
from tectum.recipes.virmfs import LossConfig, Objective
accelerator = Accelerator(cpu=True)
torch.manual_seed(0)
model = tectum.create_model("virmfs_b0", drop_path=0.0).eval()
generator = torch.Generator().manual_seed(1)
batch = Sample.of_clean(
    torch.rand(4, 3, 32, 32, generator=generator), torch.rand(4, 1, 32, 32, generator=generator),
    torch.randint(0, 9, (4, 32, 32), generator=generator),
)
batch.labels[0, :20] = 255
batch.labels[3] = 255
share = 4 // accelerator.num_processes
at = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)
objective = Objective(LossConfig(), torch.arange(1.0, 10.0), accelerator)
differentiate(model, sum(objective(model, Sample(*(x[at] for x in batch))).values()), accelerator)
if accelerator.is_main_process:
    torch.save({name: p.grad for name, p in model.named_parameters()}, sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(on_processes):
    """Evaluation mode: batch statistics are each process's own on CPUs, everything else must agree."""
    one, two = (on_processes(TWO_PROCESSES, count) for count in (1, 2))
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_batch_that_processes_cannot_share_is_named(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda self: 3))
    with pytest.raises(ConfigError, match=r"run\.batch=2 cannot be shared by 3 processes"):
        train(small_config(scenes), tmp_path)


def test_too_little_data_is_named(scenes, tmp_path):
    with pytest.raises(ConfigError, match=r"6 training pairs, fewer than run\.batch=8"):
        train(small_config(scenes, "run.batch=8"), tmp_path)


@pytest.mark.parametrize(
    ("options", "gradient", "intensity"),
    [
        ({}, gradient_loss, lambda *images, salient: intensity_loss(*images)),
        ({"direction": "separate"}, directional_gradient_loss, lambda *images, salient: intensity_loss(*images)),
        ({"target": "detailed"}, gradient_loss, detailed_intensity_loss),
    ],
)
def test_the_config_names_the_fusion_terms(options, gradient, intensity, random_batch):
    batch = random_batch()
    fused = torch.rand(batch.infrared.shape, generator=torch.Generator().manual_seed(1))
    images = fused, luminance(batch.visible), batch.infrared
    terms = fusion_loss(fused, torch.empty(0), batch, LossConfig(gradient=3, intensity=2, **options))
    torch.testing.assert_close(terms["gradient"], 3 * gradient(*images))
    salient = saliency_mask(batch.infrared, batch.labels)
    torch.testing.assert_close(terms["intensity"], 2 * intensity(*images, salient=salient))


def test_meta_steps_and_frozen_modules_exclude_each_other(scenes):
    with pytest.raises(ConfigError, match=r"set meta.enabled=false, or leave model.frozen empty"):
        small_config(scenes, "model.frozen=[backbone]")


def test_lovasz_joins_the_cross_entropy(random_batch):
    batch, accelerator = random_batch(), Accelerator(cpu=True)
    torch.manual_seed(0)
    model = tectum.create_model("virmfs_b0", drop_path=0.0).eval()
    with torch.no_grad():
        total, images = lovasz_softmax_sum(model(batch.visible, batch.infrared).logits, batch.labels)
    plain = full_step(model, batch, LossConfig(), None, accelerator)
    joined = full_step(model, batch, LossConfig(lovasz=3), None, accelerator)
    assert "lovasz" not in plain
    torch.testing.assert_close(joined["lovasz"], 3 * total / images)
    torch.testing.assert_close(joined["segmentation"], plain["segmentation"])


@pytest.mark.slow
def test_unlabelled_pairs_train_the_segmentation_through_a_segmenter(scenes, tmp_path, log_of):
    tectum.create_model("virmfs_b0").save(tmp_path / "segmenter")
    options = ("data.train.0.labels=false", "run.epochs=1", "meta.enabled=false")
    train(small_config(scenes, *options), tmp_path / "without")
    train(
        small_config(scenes, *options, f"self_training.model={tmp_path / 'segmenter'}", "self_training.confidence=0"),
        tmp_path / "with",
    )
    first = {name: log_of(tmp_path / name)[0]["segmentation"] for name in ("without", "with")}
    assert first["without"] == 0
    assert first["with"] > 1


def test_divergence_stops_with_a_remedy(scenes, tmp_path):
    with pytest.raises(InputError, match=r"is not finite at step .*lower optimiser\.lr"):
        train(small_config(scenes, "optimiser.lr=1e30", "optimiser.warmup_steps=0", "run.epochs=20"), tmp_path)


def test_class_weights_must_fit_the_classes(scenes, tmp_path):
    with pytest.raises(ConfigError, match=r"class_weights has 2 values, but msrs has 9 classes"):
        train(small_config(scenes, "loss.class_weights=[1, 2]"), tmp_path)


def test_damaged_checkpoint_is_named(scenes, tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match=r"checkpoint\.pt' does not fit this run"):
        train(small_config(scenes), tmp_path)


def test_holdout_pairs_are_not_trained_on(scenes):
    config = small_config(scenes, "data.holdout=0.5", "data.validation=[]")
    training, validation = training_tables(config.data, config.run)
    assert training
    assert validation
    assert not {pair.visible for pair in training} & {pair.visible for pair in validation}
    unlabelled = small_config(scenes, "data.holdout=0.5", "data.validation=[]", "data.train.0.labels=false")
    assert [[pair.name for pair in table] for table in training_tables(unlabelled.data, unlabelled.run)] == [
        [pair.name for pair in table] for table in (training, validation)
    ]
    assert all(pair.label is None for table in training_tables(unlabelled.data, unlabelled.run) for pair in table)


def test_labels_that_look_for_some_classes_train_them_alone(scenes):
    from tectum.data.transforms import PairDataset
    from tectum.data.truth import any_of

    config = small_config(scenes, "data.train.0.looked_for=[1,2]", "data.holdout=0.5", "data.validation=[]")
    training, validation = training_tables(config.data, config.run)
    assert all(pair.use.looked_for == (1, 2) for pair in validation)  # by which the recipe leaves them out of scores
    complete = [replace(pair, use=Use()) for pair in training]
    found, whole = (PairDataset(table, 9, config.data.augmentation)[0, 5].labels for table in (training, complete))
    others = any_of({0, 3, 4, 5, 6, 7, 8})
    assert (whole == 0).any()
    assert torch.equal(found, whole.where(whole != 0, others))


def test_pairs_without_a_label_map_can_be_left_out(scenes, tmp_path):
    shutil.copytree(scenes, tmp_path / "scenes")
    next((tmp_path / "scenes" / "train" / "Segmentation_labels").iterdir()).unlink()
    for labelled_only, count in ((False, 6), (True, 5)):
        config = small_config(tmp_path / "scenes", f"data.train.0.labelled_only={labelled_only}".lower())
        assert len(training_tables(config.data, config.run)[0]) == count


@pytest.mark.parametrize(
    "name", sorted(path.name for path in CONFIGS.glob("virmfs*.yaml") if not path.stem.endswith("pretrain"))
)
def test_shipped_configs_are_valid(name):
    assert read_config(VirmfsConfig, CONFIGS / name).run.epochs > 0


def test_a_renamed_module_does_not_leave_the_meta_step_in_silence(scenes, tmp_path, monkeypatch):
    roles = ViRMFS.roles | {"fusion": ("fusions", "deepest_fusion", "blending_head")}
    monkeypatch.setattr(ViRMFS, "roles", roles)
    with pytest.raises(ValueError, match="virmfs_b0 has no 'blending_head', which it declares for the role fusion"):
        train(small_config(scenes), tmp_path)


def test_without_a_loss_on_the_picture_none_is_made(scenes, random_batch, monkeypatch):
    losses = ("loss.gradient=0", "loss.intensity=0", "loss.lovasz=1", "loss.boxes=1")
    config = small_config(scenes, *losses, "meta.enabled=false")
    monkeypatch.setattr(ViRMFS, "fuse_image", lambda *_: pytest.fail("a picture was made"))
    recipe = Virmfs(config, dataset_info("msrs"), Accelerator())
    terms = recipe.step(random_batch(), epoch=0)
    assert set(terms) == {"segmentation", "lovasz", "boxes"}
    assert terms["segmentation"] > 0


def test_boxes_without_a_label_map_need_the_classes_that_have_boxes(scenes, tmp_path):
    root = tmp_path / "boxed"
    shutil.copytree(scenes / "train", root)
    shutil.rmtree(root / "Segmentation_labels")
    (root / "boxes").mkdir()
    for image in (root / "vi").iterdir():
        (root / "boxes" / f"{image.stem}.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    settings = (f"data.train.0.root={root}", "data.train.0.split=null", "data.train.0.boxes=true", "data.holdout=0")
    config = small_config(scenes, *settings)
    with pytest.raises(ConfigError, match="looked_for"):
        training_tables(config.data, config.run)
    config = small_config(scenes, *settings, "data.train.0.looked_for=[1,2,3]", "data.train.0.labelled_only=true")
    training, _ = training_tables(config.data, config.run)
    assert len(training) == 6
    assert all(pair.use.boxes for pair in training)
