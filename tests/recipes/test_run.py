import pytest
import torch
from accelerate import Accelerator
from networks import random_pair

import tectum
from tectum.data.datasets import dataset_info
from tectum.errors import ConfigError
from tectum.recipes.config import ModelConfig, OptimiserConfig, SelfTrainingConfig
from tectum.recipes.networks import create_network, make_labeller
from tectum.recipes.optimisation import make_optimiser, set_learning_rate


def rates(total, **settings):
    config = OptimiserConfig(**settings)
    optimiser = make_optimiser(config, [torch.nn.Parameter(torch.zeros(2, 2))])
    result = []
    for step in range(total):
        result.append(set_learning_rate(optimiser, config, step, total))
        assert {group["lr"] for group in optimiser.param_groups} == {result[-1]}
    return result


def test_constant_schedule_stays():
    assert rates(4, lr=0.1) == [0.1] * 4


def test_poly_schedule_falls_as_the_power_of_what_is_left():
    expected = [0.1 * (1 - step / 8) ** 0.9 for step in range(8)]
    assert rates(8, lr=0.1, schedule="poly") == pytest.approx(expected)


def test_poly_schedule_begins_after_the_warm_up():
    result = rates(10, lr=0.1, schedule="poly", warmup_steps=2)
    assert result[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert result[9] == pytest.approx(0.1 * (1 / 8) ** 0.9)


def test_cosine_schedule_is_half_way_in_the_middle():
    result = rates(10, lr=0.1, schedule="cosine", warmup_steps=2)
    assert result[2] == pytest.approx(0.1)
    assert result[6] == pytest.approx(0.05)


def test_warm_up_is_linear_from_zero():
    assert rates(6, lr=0.1, warmup_steps=4) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_exponential_warm_up_begins_at_its_rate_and_grows_by_a_factor():
    # PSFusion's ends, in two steps: 1e-5 to 1e-3.
    assert rates(4, lr=1e-3, warmup_steps=2, warmup_from=1e-5) == pytest.approx([1e-5, 1e-4, 1e-3, 1e-3])


def test_a_start_without_warm_up_steps_changes_nothing():
    assert rates(3, lr=0.1, warmup_from=1e-5) == [0.1] * 3


def test_sgd_with_momentum_and_weight_decay_of_matrices_only():
    config = OptimiserConfig(name="sgd", lr=0.1, momentum=0.5, weight_decay=0.2)
    matrix, vector = (torch.nn.Parameter(torch.ones(shape)) for shape in ((1, 1), (1,)))
    optimiser = make_optimiser(config, [matrix, vector])
    assert isinstance(optimiser, torch.optim.SGD)
    decayed, plain, decayed_velocity, plain_velocity = 1.0, 1.0, 0.0, 0.0
    for _ in range(3):
        matrix.grad, vector.grad = torch.ones(1, 1), torch.ones(1)
        optimiser.step()
        decayed_velocity = 0.5 * decayed_velocity + 1 + 0.2 * decayed
        plain_velocity = 0.5 * plain_velocity + 1
        decayed, plain = decayed - 0.1 * decayed_velocity, plain - 0.1 * plain_velocity
    assert matrix.item() == pytest.approx(decayed)
    assert vector.item() == pytest.approx(plain)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_the_config_names_the_optimiser(name, kind):
    assert type(make_optimiser(OptimiserConfig(name=name, lr=0.1), [torch.nn.Parameter(torch.ones(1))])) is kind


def network(seed=0, dataset="msrs", **model):
    return create_network(ModelConfig(**model), "virmfs", "virmfs", dataset_info(dataset), seed)


def test_starts_from_all_weights_of_the_same_classes(tmp_path):
    source = network(name="virmfs_b0")
    source.save(tmp_path)
    started = network(seed=1, name="virmfs_b0", weights=str(tmp_path)).state_dict()
    for key, value in source.state_dict().items():
        assert torch.equal(started[key], value), key


def test_layers_of_other_classes_start_anew(tmp_path):
    source = network(name="virmfs_b0", dataset="fmb").state_dict()
    network(name="virmfs_b0", dataset="fmb").save(tmp_path)
    plain = network(seed=1, name="virmfs_b0").state_dict()
    started = network(seed=1, name="virmfs_b0", weights=str(tmp_path)).state_dict()
    anew = {"segmentation_head.prediction.weight", "segmentation_head.prediction.bias"}
    for key, value in started.items():
        assert torch.equal(value, plain[key] if key in anew else source[key]), key


@pytest.mark.parametrize(("before", "after"), [(0, 10), (10, 0), (10, 12)])
def test_a_selection_of_another_width_starts_anew(before, after, tmp_path):
    source = network(name="virmfs_b0", arguments={"selection": before})
    source.save(tmp_path)
    arguments = {"selection": after}
    plain = network(seed=1, name="virmfs_b0", arguments=arguments).state_dict()
    started = network(seed=1, name="virmfs_b0", arguments=arguments, weights=str(tmp_path)).state_dict()
    trained = source.state_dict()
    for key, value in started.items():
        fits = key in trained and trained[key].shape == value.shape
        assert torch.equal(value, trained[key] if fits else plain[key]), key
    assert torch.equal(started["fusion_head.fuse.weight"], trained["fusion_head.fuse.weight"])


def test_frozen_modules_keep_weights_and_statistics():
    model = network(name="virmfs_b0", frozen=["backbone", "segmentation_head"])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimiser = make_optimiser(OptimiserConfig(lr=0.1, weight_decay=0.5), model.parameters())
    output = model(*random_pair(batch=2))
    (output.fused.mean() + output.logits.mean()).backward()
    optimiser.step()
    changed = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"fusions", "deepest_fusion", "fusion_head"}


def test_an_unknown_module_to_freeze_is_named():
    with pytest.raises(ConfigError, match=r"model.frozen names 'encoder', but virmfs_b0 consists of backbone, fu"):
        network(name="virmfs_b0", frozen=["encoder"])


@pytest.mark.slow
def test_weights_of_another_network_are_refused(tmp_path):
    network(name="virmfs_b0").save(tmp_path / "b0")
    tectum.create_model("mafs_r18").save(tmp_path / "r18")
    for folder, name in (("b0", "virmfs_b1"), ("r18", "virmfs_b0")):
        with pytest.raises(ConfigError, match=rf"model.weights '.*{folder}' are of .*, which does not fit {name}"):
            network(name=name, weights=str(tmp_path / folder))
    with pytest.raises(ConfigError, match="there are no weights 'nowhere'"):
        network(name="virmfs_b0", weights="nowhere")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segmenter")
    network(name="virmfs_b0").save(folder)
    return folder


def test_only_confident_pixels_of_unlabelled_pairs_get_labels(segmenter, random_batch):
    batch = random_batch(size=3)
    batch.labels[1] = 255
    model = tectum.load(segmenter)
    with torch.no_grad():
        probability, predicted = model(batch.visible, batch.infrared).logits.softmax(dim=1).max(dim=1)
    confidence = probability[1].median().item()
    config = SelfTrainingConfig(model=str(segmenter), confidence=confidence)
    labels = make_labeller(config, 9, "float32", Accelerator(cpu=True))(batch).labels
    assert torch.equal(labels[[0, 2]], batch.labels[[0, 2]])
    expected = torch.where(probability[1] >= confidence, predicted[1], 255)
    assert (labels[1] == expected).float().mean() > 0.999  # those at the very threshold may fall on either side
    assert 0.4 < (labels[1] == 255).float().mean() < 0.6


def test_without_self_training_a_batch_stays(random_batch):
    batch = random_batch()
    assert make_labeller(None, 9, "float32", Accelerator(cpu=True))(batch) is batch


def test_self_training_needs_a_segmenter_of_the_same_classes(segmenter):
    config = SelfTrainingConfig(model=str(segmenter))
    with pytest.raises(ConfigError, match=r"self_training.model '.*' has 9 classes, but 5 are to be learned"):
        make_labeller(config, 5, "float32", Accelerator(cpu=True))
