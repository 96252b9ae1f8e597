import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from small_mafs import small_sections

import tectum
from tectum.errors import ConfigError
from tectum.losses.balance import Balance, TaskBalance
from tectum.losses.fusion import (
    detailed_intensity_loss,
    directional_gradient_loss,
    intensity_loss,
    saliency_mask,
    selected_intensity_loss,
)
from tectum.losses.segmentation import binary_target, boundary_target, cross_entropy
from tectum.models.base import Output, luminance
from tectum.recipes import mafs_joint
from tectum.recipes.loop import differentiate
from tectum.recipes.mafs_joint import (
    FusionLossConfig,
    MafsJointConfig,
    Objective,
    SegmentationLossConfig,
    TeacherConfig,
    distillation_term,
    fusion_terms,
    segmentation_terms,
    train,
)
from tectum.recipes.networks import load_segmenter
from tectum.recipes.reading import CONFIGS, read_config

FUSION = {"gradient", "intensity"}
SEGMENTATION = {"semantic", "auxiliary", "binary", "boundary"}
WEIGHTS = {"weight/fusion", "weight/segmentation"}


def small_config(scenes, **changes):
    own = {
        "data": {"augmentation": {"crop": 64, "flip": 0.5}},
        "balance": {"reference_steps": 2},
        "optimiser": {"lr": 2e-4, "warmup_from": 2e-5},
    }
    return MafsJointConfig.model_validate(small_sections(scenes, own, changes))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Settings of a saved network of another kind with nine classes and random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teacher")
    tectum.create_model("virmfs_b0").save(folder)
    return {"model": str(folder)}


@pytest.fixture(scope="module")
def finished(scenes, teacher, tmp_path_factory):
    """Directory of a finished run with a teacher."""
    directory = tmp_path_factory.mktemp("finished")
    train(small_config(scenes, teacher=teacher), directory)
    yield directory
    shutil.rmtree(directory)


def make_balance(reference_steps=20, decay=0.99):
    return TaskBalance(Balance(decay=decay, reference_steps=reference_steps), ("fusion", "segmentation"))


def joint_step(model, batch, config, class_weights, teacher, balance, accelerator):
    """Leave the gradient of L in the parameters; gives its terms and weights."""
    loss, terms = Objective(config, class_weights, teacher, balance, accelerator)(model, batch)
    differentiate(model, loss, accelerator)
    return terms


def random_outputs(size, side, spread=1.0):
    """Logits and auxiliary outputs of nine classes, that ask for a gradient."""
    generator = torch.Generator().manual_seed(1)

    def scores(classes):
        return (spread * torch.randn(size, classes, side, side, generator=generator)).requires_grad_()

    aux = {f"semantic_{scale}": scores(9) for scale in (4, 8, 16)}
    return scores(9), aux | {f"two_class_{scale}": scores(2) for scale in (4, 8, 16)}


def test_fusion_terms(random_batch):
    batch = random_batch()
    light, fused = luminance(batch.visible), batch.infrared.flip(-1)
    config = FusionLossConfig(gradient=3, intensity=7)
    terms = fusion_terms(fused, batch, config)
    salient = saliency_mask(batch.infrared, batch.labels)
    assert salient.any()
    assert terms == {
        "gradient": 3 * directional_gradient_loss(fused, light, batch.infrared),
        "intensity": 7 * selected_intensity_loss(fused, light, batch.infrared, salient),
    }
    for target, loss in (
        ("maximum", intensity_loss(fused, light, batch.infrared)),
        ("detailed", detailed_intensity_loss(fused, light, batch.infrared, salient)),
    ):
        other = fusion_terms(fused, batch, config.model_copy(update={"target": target}))
        assert other["intensity"] == 7 * loss
        assert other["gradient"] == terms["gradient"]
        assert not torch.isclose(other["intensity"], terms["intensity"])


def test_each_output_has_its_target(random_batch):
    labels = random_batch().labels
    logits, aux = random_outputs(2, 64)
    class_weights = torch.arange(1.0, 10.0)
    config = SegmentationLossConfig(kind="cross_entropy", semantic=2, auxiliary=3, binary=5, boundary=7)
    terms = segmentation_terms(logits, aux, labels, config, class_weights, Accelerator(cpu=True))
    foreground, boundary = binary_target(labels), boundary_target(labels)
    weights = [torch.tensor(w) for w in (config.binary_weights, config.boundary_weights)]
    expected = {
        "semantic": 2 * cross_entropy(logits, labels, class_weights),
        "auxiliary": 3 * sum(cross_entropy(aux[f"semantic_{s}"], labels, class_weights) for s in (4, 8, 16)),
        "binary": 5 * sum(cross_entropy(aux[f"two_class_{s}"], foreground, weights[0]) for s in (8, 16)) / 2,
        "boundary": 7 * cross_entropy(aux["two_class_4"], boundary, weights[1]),
    }
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name], msg=name)


def test_kinds_of_the_semantic_loss_differ(random_batch):
    """On more pixels than OHEM keeps at least, most of them easy."""
    labels = random_batch(2, 192).labels
    logits, aux = random_outputs(2, 192)
    easy = torch.nn.functional.one_hot(labels.where(labels != 255, 0), 9).movedim(-1, 1)[..., :150] * 6
    values = {}
    for kind in ("ohem", "cross_entropy", "lovasz"):
        config = SegmentationLossConfig(kind=kind)
        scores = logits + torch.nn.functional.pad(easy, (0, 42))
        terms = segmentation_terms(scores, aux, labels, config, None, Accelerator(cpu=True))
        (gradient,) = torch.autograd.grad(terms["semantic"], logits)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0
        values[kind] = terms["semantic"].item()
        assert values[kind] > 0
    assert values["ohem"] > 1.05 * values["cross_entropy"]
    assert values["lovasz"] <= 10
    assert values["lovasz"] != pytest.approx(values["cross_entropy"], rel=0.05)


@pytest.mark.parametrize("kind", ["ohem", "cross_entropy", "lovasz"])
def test_without_labels_segmentation_costs_nothing(kind):
    logits, aux = random_outputs(2, 16)
    labels = torch.full((2, 16, 16), 255)
    config = SegmentationLossConfig(kind=kind)
    terms = segmentation_terms(logits, aux, labels, config, torch.ones(9), Accelerator(cpu=True))
    assert terms == dict.fromkeys(SEGMENTATION, 0)
    gradients = torch.autograd.grad(sum(terms.values()), [logits, *aux.values()])
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.slow
def test_every_parameter_gets_a_gradient_and_the_teacher_none(random_batch, scenes, teacher):
    torch.manual_seed(0)
    model = tectum.create_model("mafs_r18")
    config = small_config(scenes, teacher=teacher)
    frozen = load_segmenter("teacher.model", config.teacher.model, 9, Accelerator(cpu=True))
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    terms = joint_step(model, random_batch(), config, None, frozen, make_balance(), Accelerator(cpu=True))
    assert terms.keys() == FUSION | SEGMENTATION | {"distillation"} | WEIGHTS
    assert all(term > 0 for term in terms.values())
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not any(p.requires_grad or p.grad is not None for p in frozen.parameters())
    assert not any(module.training for module in frozen.modules())
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())


def test_gradient_is_that_of_the_weighted_tasks(random_batch, scenes):
    torch.manual_seed(0)
    model = tectum.create_model("mafs_r18")
    heads = (model.fusion_decoder.prediction.weight, model.segmentation_decoder.head.semantic[1].weight)

    def step(balance):
        terms = joint_step(model, random_batch(2, 32), small_config(scenes), None, None, balance, Accelerator(cpu=True))
        return [terms["weight/fusion"], terms["weight/segmentation"]], [p.grad.clone() for p in heads]

    equal, plain = step(make_balance())
    balance = make_balance(reference_steps=1, decay=0.5)
    balance.update({"fusion": 2000.0, "segmentation": 1.0})
    weights, weighted = step(balance)
    assert equal == [1, 1]
    assert [weight.item() for weight in weights] == pytest.approx([0.5, 1.5], abs=0.02)
    for weight, gradient, alone in zip(weights, weighted, plain, strict=True):
        assert (gradient - weight * alone).norm() < 1e-3 * gradient.norm()


@pytest.mark.slow
def test_batch_without_labels_trains_fusion_alone(random_batch, scenes, teacher):
    torch.manual_seed(0)
    model = tectum.create_model("mafs_r18")
    config, balance, accelerator = small_config(scenes, teacher=teacher), make_balance(1), Accelerator(cpu=True)
    frozen = load_segmenter("teacher.model", config.teacher.model, 9, accelerator)
    batch = random_batch()
    first = joint_step(model, batch, config, None, frozen, balance, accelerator)
    before = balance.state_dict()
    batch.labels.fill_(255)
    terms = joint_step(model, batch, config, None, frozen, balance, accelerator)
    assert all(terms[name] == 0 for name in SEGMENTATION | {"distillation"})
    assert terms["gradient"] == first["gradient"]
    assert terms["weight/fusion"] + terms["weight/segmentation"] == pytest.approx(2)
    after = balance.state_dict()
    for key in ("seen", "reference", "average"):
        assert after[key]["segmentation"] == before[key]["segmentation"] > 0
    assert after["average"]["fusion"] != before["average"]["fusion"]
    beyond = {name: p for name, p in model.segmentation_decoder.named_parameters() if p.grad.abs().sum() > 0}
    assert not beyond
    assert all(p.grad.abs().sum() > 0 for p in model.fusion_decoder.parameters())
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_teacher_sees_the_labelled_pairs_in_the_colours_of_the_fused_image(random_batch):
    class Spy:
        def __call__(self, visible, infrared):
            self.seen = (visible, infrared)
            return Output(infrared, 5 * torch.cat([infrared] * 9, dim=1), {})

    batch, spy = random_batch(3), Spy()
    batch = batch._replace(visible=0.4 + 0.2 * batch.visible)  # leaves room for other luminances
    batch.labels[1] = 255
    fused = 0.4 + 0.2 * batch.infrared
    logits = random_outputs(3, 64)[0]
    config = TeacherConfig(model="spy", weight=3)
    term = distillation_term(logits, fused, batch, spy, config, "float32", Accelerator(cpu=True))
    assert term > 0
    visible, infrared = spy.seen
    assert torch.equal(infrared, batch.infrared[[0, 2]])
    torch.testing.assert_close(luminance(visible), fused[[0, 2]])
    chroma = [image - luminance(image) for image in (visible, batch.visible[[0, 2]])]
    torch.testing.assert_close(chroma[0], chroma[1])
    assert torch.autograd.grad(term, logits)[0][1].abs().sum() == 0
    agreeing = 5 * torch.cat([batch.infrared] * 9, dim=1)
    same = distillation_term(agreeing, fused, batch, spy, config, "float32", Accelerator(cpu=True))
    assert same.item() == pytest.approx(0, abs=1e-5)


def test_teacher_of_other_classes_is_refused(scenes, tmp_path):
    tectum.create_model("virmfs_b0", classes=5).save(tmp_path / "five")
    config = small_config(scenes, teacher={"model": str(tmp_path / "five")})
    with pytest.raises(ConfigError, match=r"five' has 5 classes, but 9 are to be learned"):
        train(config, tmp_path / "run")


class StopBeforeTheFirstStepError(Exception):
    pass


@pytest.mark.slow
def test_starts_from_the_pretrained_encoder(scenes, tmp_path, monkeypatch):
    torch.manual_seed(7)
    pretrained = tectum.create_model("mafs_r18", classes=5)
    pretrained.save(tmp_path / "pretrained")
    started = {}

    def first_step(objective, model, batch):
        started.update({key: value.clone() for key, value in model.state_dict().items()})
        raise StopBeforeTheFirstStepError

    monkeypatch.setattr(mafs_joint.Objective, "__call__", first_step)
    with pytest.raises(StopBeforeTheFirstStepError):
        train(small_config(scenes, pretrained=tmp_path / "pretrained"), tmp_path / "run")
    source = pretrained.state_dict()
    for name in pretrained.role("pretraining"):
        assert torch.equal(started[name], source[name]), name
    assert len(started["segmentation_decoder.head.semantic.1.weight"]) == 9
    assert not torch.equal(started["fusion_decoder.fuse.weight"], source["fusion_decoder.fuse.weight"])


def test_only_mafs_networks_are_trained_and_start_it(scenes, teacher, tmp_path):
    with pytest.raises(ConfigError, match=r"mafs_joint trains the mafs_\* networks, not 'virmfs_b0'"):
        train(small_config(scenes, model={"name": "virmfs_b0"}), tmp_path)
    with pytest.raises(ConfigError, match=r"pretrained must be a network of mafs_pretrain, but '.*' is none"):
        train(small_config(scenes, pretrained=teacher["model"]), tmp_path)


def test_the_encoder_has_one_start(scenes):
    with pytest.raises(ValueError, match=r"pretrained and model.weights both say where the encoder starts"):
        small_config(scenes, pretrained=Path("a"), model={"weights": "b"})


def test_class_weights_must_fit_the_classes(scenes, tmp_path):
    with pytest.raises(ConfigError, match=r"class_weights has 2 values, but msrs has 9 classes"):
        train(small_config(scenes, segmentation={"class_weights": [1, 2]}), tmp_path)


@pytest.mark.slow
def test_expected_losses(finished, log_of):
    """Losses of a fixed tiny run; a change here means that training itself has changed.

    The first is the same on every machine. The others are as far apart between processors as the tolerances allow for:
    the auxiliary outputs come from maps of 2 x 2 pixels, whose batch norms magnify rounding from step to step.
    """
    records = [record for record in log_of(finished) if "validation" not in record]
    assert [record["step"] for record in records] == list(range(1, 7))
    for name, expected in EXPECTED_LOSSES.items():
        losses = [record[name] for record in records]
        assert losses[0] == pytest.approx(expected[0], rel=0.002), name
        assert losses[:4] == pytest.approx(expected[:4], rel=0.12 if name in ("binary", "boundary") else 0.03), name
        assert losses == pytest.approx(expected, rel=0.12), name


EXPECTED_LOSSES = {
    "gradient": [10.0332, 9.3077, 7.0671, 4.1231, 4.9882, 4.6230],
    "intensity": [3.0201, 4.0614, 4.4955, 4.4461, 4.7344, 4.7879],
    "semantic": [21.7727, 21.6044, 21.1628, 20.0784, 16.6636, 13.1609],
    "auxiliary": [31.1462, 31.5885, 31.4537, 31.4855, 30.6416, 30.2413],
    "binary": [7.0492, 7.1298, 7.2594, 6.9531, 7.3445, 7.0986],
    "boundary": [6.1845, 5.9253, 6.3931, 5.9421, 5.8123, 5.8262],
    "distillation": [0.1127, 0.1106, 0.1067, 0.1126, 0.1162, 0.1186],
}


@pytest.mark.slow
def test_task_weights_are_logged(finished, log_of):
    records = [record for record in log_of(finished) if "validation" not in record]
    weights = [(record["weight/fusion"], record["weight/segmentation"]) for record in records]
    assert weights[:2] == [(1, 1), (1, 1)]  # the reference steps
    assert [sum(pair) for pair in weights] == pytest.approx([2] * 6)
    assert all(pair[0] != pytest.approx(1, abs=1e-4) for pair in weights[2:])


@pytest.mark.slow
def test_run_directory_holds_what_explains_it(scenes, teacher, finished, log_of):
    names = {path.name for path in finished.iterdir()}
    assert names == {"config.yaml", "environment.json", "log.jsonl", "tensorboard", "checkpoint.pt", "best", "last"}
    assert read_config(MafsJointConfig, finished / "config.yaml") == small_config(scenes, teacher=teacher)
    metadata = tectum.load(finished / "last").metadata
    assert metadata["dataset"] == "msrs"
    assert len(metadata["class_names"]) == len(metadata["palette"]) == 9
    assert {"qabf", "mi", "vif", "miou"} <= set(log_of(finished)[-1]["validation"])


@pytest.mark.slow
def test_killed_and_resumed_gives_the_uninterrupted_weights(scenes, teacher, whole_and_broken, assert_same_weights):
    run = {"checkpoint_minutes": 0.0001, "validate_every": 1}
    small = {"augmentation": {"crop": 32, "flip": 0.5}}
    whole, broken = whole_and_broken(small_config(scenes, teacher=teacher, run=run, data=small), kills=(1, 4))
    assert_same_weights(whole / "last", broken / "last")
    assert_same_weights(whole / "best", broken / "best")
    balances = [torch.load(d / "checkpoint.pt", weights_only=True)["balance"] for d in (whole, broken)]
    assert balances[0] == balances[1]
    assert balances[0]["seen"] == {"fusion": 2, "segmentation": 2}


TWO_PROCESSES = """
import sys
import torch
torch.set_num_threads(1)
from accelerate import Accelerator
import tectum
from tectum.data.transforms import Sample
from tectum.losses.balance import Balance, TaskBalance
from tectum.recipes.loop import differentiate
from tectum.recipes.mafs_joint import MafsJointConfig, Objective
accelerator = Accelerator(cpu=True)
torch.manual_seed(0)
model = tectum.create_model("mafs_r18").double()
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.eval()
teacher = tectum.create_model("virmfs_b0").double().eval().requires_grad_(False)
config = MafsJointConfig.model_validate({
    "data": {"train": [{"root": "none"}]}, "segmentation": {"kind": "cross_entropy"}, "teacher": {"model": "none"},
    "optimiser": {"lr": 1}, "run": {"epochs": 1, "batch": 4},
})
generator = torch.Generator().manual_seed(1)
batch = Sample.of_clean(
    torch.rand(4, 3, 32, 64, generator=generator).double(), torch.rand(4, 1, 32, 64, generator=generator).double(),
    torch.randint(0, 9, (4, 32, 64), generator=generator),
)
batch.labels[0, :20] = 255
batch.labels[3] = 255
share = 4 // accelerator.num_processes
at = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)
balance = TaskBalance(Balance(reference_steps=1), ("fusion", "segmentation"))
balance.update({"fusion": 20.0, "segmentation": 200.0})
objective = Objective(config, torch.arange(1.0, 10.0), teacher, balance, accelerator)
loss, terms = objective(model, Sample(*(x[at] for x in batch)))
differentiate(model, loss, accelerator)
if accelerator.is_main_process:
    gradients = {name: p.grad for name, p in model.named_parameters()}
    torch.save(gradients | {name: term for name, term in terms.items() if name.startswith("weight/")}, sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(on_processes):
    """With batch norms in evaluation mode: their statistics are each process's own on CPUs, all else must agree.

    In float64, since the deep network makes rounding errors large.
    """
    one, two = (on_processes(TWO_PROCESSES, count) for count in (1, 2))
    assert one["weight/fusion"] != 1
    for name, gradient in one.items():
        assert (two[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-5, name


@pytest.mark.parametrize(
    "name", sorted(path.name for path in CONFIGS.glob("mafs_*.yaml") if not path.stem.endswith("pretrain"))
)
def test_shipped_configs_are_valid(name):
    config = read_config(MafsJointConfig, CONFIGS / name)
    assert config.data.augmentation.crop % 32 == 0
    assert config.model.name in tectum.list_models()
