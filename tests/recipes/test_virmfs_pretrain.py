import pytest
import torch
from accelerate import Accelerator
from small_mafs import pretraining_step, small_sections

import tectum
from tectum.data.datasets import dataset_info
from tectum.data.masking import mask_pair
from tectum.errors import ConfigError, InputError
from tectum.models.virmfs import MaskedAutoencoder
from tectum.recipes import loop
from tectum.recipes.config import ModelConfig
from tectum.recipes.mafs_pretrain import MaskingConfig, validate
from tectum.recipes.networks import create_network
from tectum.recipes.pairs import training_tables
from tectum.recipes.reading import CONFIGS, read_config
from tectum.recipes.virmfs import VirmfsConfig
from tectum.recipes.virmfs_pretrain import VirmfsPretrainConfig, train

MASKS = MaskingConfig(patch=16)
HEADS = ("segmentation_head.", "fusion_head.", "selection.")
ARGUMENTS = {"drop_path": 0.0}


def small_config(scenes, **changes):
    own = {
        "model": {"name": "virmfs_b0", "arguments": ARGUMENTS},
        "data": {"augmentation": {"crop": 64, "flip": 0.5, "turn": 0.75}},
        "reconstruction": {"patch": 16},
        "optimiser": {"lr": 0.05, "gradient_clip": 1},
        "run": {"ema": 0.5},
    }
    return VirmfsPretrainConfig.model_validate(small_sections(scenes, own, changes))


def autoencoder_of(name="virmfs_b0", **arguments):
    torch.manual_seed(0)
    return MaskedAutoencoder(tectum.create_model(name, **(ARGUMENTS | arguments)))


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory):
    """Directory of a finished run."""
    directory = tmp_path_factory.mktemp("finished")
    train(small_config(scenes), directory)
    return directory


@pytest.mark.parametrize("name", ["virmfs_b0", "virmfs_lite0"])
def test_all_but_the_heads_of_the_network_gets_a_gradient(name, random_batch):
    autoencoder = autoencoder_of(name, selection=16)
    terms = pretraining_step(autoencoder, random_batch(), MASKS, Accelerator(cpu=True))
    assert terms.keys() == {
        f"{image}_{term}" for image in ("visible", "infrared") for term in ("intensity", "gradient")
    }
    without = {name for name, p in autoencoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert without == {f"model.{name}" for name, _ in autoencoder.model.named_parameters() if name.startswith(HEADS)}
    # Otherwise several processes would give them gradients of zero, which weight decay joins.
    assert not any(p.requires_grad for name, p in autoencoder.named_parameters() if name in without)


def test_loss_goes_down(random_batch):
    autoencoder, batch = autoencoder_of(), random_batch()
    batch = batch._replace(visible=batch.visible * 0.2, infrared=batch.infrared * 0.2 + 0.7)
    optimiser, losses = torch.optim.AdamW(autoencoder.parameters(), 1e-3), []
    for _ in range(8):
        torch.manual_seed(1)  # the same masks
        losses.append(sum(pretraining_step(autoencoder, batch, MASKS, Accelerator(cpu=True)).values()).item())
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]


def test_what_is_hidden_does_not_reach_the_network(random_batch):
    autoencoder, batch, shown = autoencoder_of(), random_batch(), []
    autoencoder.register_forward_hook(lambda module, inputs, images: shown.append(torch.cat(images)))

    def step(visible, infrared):
        torch.manual_seed(1)
        pretraining_step(autoencoder, batch._replace(visible=visible, infrared=infrared), MASKS, Accelerator(cpu=True))
        return shown.pop().detach()

    torch.manual_seed(1)
    masked = mask_pair(batch.visible, batch.infrared, 16)
    kept_visible, kept_infrared = masked.hidden_visible == 0, masked.hidden_infrared == 0
    before = step(batch.visible, batch.infrared)
    changed = (1 - batch.visible, 1 - batch.infrared)
    hidden = step(
        *(x.where(kept, y) for x, kept, y in zip(batch, (kept_visible, kept_infrared), changed, strict=False))
    )
    assert torch.equal(before, hidden)
    # What is kept of the visible image shows in both.
    seen = step(batch.visible.where(~kept_visible, changed[0]), batch.infrared)
    difference = (before - seen).abs().mean(dim=(1, 2, 3))
    assert (difference > 1e-3).all()


def test_images_have_the_size_of_the_pair(random_batch):
    visible, infrared = autoencoder_of()(*(x[..., :32] for x in random_batch()[:2]))
    assert visible.shape == infrared.shape == (2, 1, 64, 32)
    assert 0 <= visible.min() < visible.max() <= 1
    with pytest.raises(InputError, match="multiples of 32"):
        autoencoder_of()(*(x[..., :40] for x in random_batch()[:2]))


@pytest.mark.slow
def test_expected_losses(finished, log_of):
    """Losses of a fixed tiny run; a change here means that training itself has changed."""
    records = [record for record in log_of(finished) if "validation" not in record]
    assert [record["step"] for record in records] == list(range(1, 7))
    for name, expected in EXPECTED_LOSSES.items():
        assert [record[name] for record in records] == pytest.approx(expected, rel=0.02), name
    (validation,) = [record["validation"] for record in log_of(finished) if "validation" in record]
    assert validation.keys() == EXPECTED_LOSSES.keys()
    assert (finished / "pictures" / "reconstruction_000006.png").is_file()


EXPECTED_LOSSES = {
    "visible_intensity": [0.3753, 0.4391, 0.3534, 0.3272, 0.3548, 0.6191],
    "visible_gradient": [0.1265, 0.1447, 0.0715, 0.0721, 0.0877, 0.1493],
    "infrared_intensity": [0.7614, 0.5289, 0.8620, 0.9998, 0.2755, 0.2196],
    "infrared_gradient": [0.1751, 0.0971, 0.1615, 0.1631, 0.0455, 0.0416],
}


@pytest.mark.slow
def test_interrupted_and_resumed_gives_the_uninterrupted_weights(
    scenes, finished, tmp_path, monkeypatch, assert_same_weights
):
    def interrupted(*arguments, whole=loop.clip_and_step):
        steps.append(whole(*arguments))
        if len(steps) == 4:
            raise KeyboardInterrupt

    config, steps = small_config(scenes, run={"checkpoint_minutes": 1e-9}), []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "clip_and_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
    train(config, tmp_path)
    assert_same_weights(tmp_path / "last", finished / "last")


@pytest.mark.slow
def test_virmfs_starts_from_the_result(finished):
    pretrained = tectum.load(finished / "last")
    config = ModelConfig(name="virmfs_b0", arguments={"selection": 16}, weights=str(finished / "last"))
    model = create_network(config, "virmfs", "virmfs", dataset_info("fmb"), seed=5)
    assert model.classes == len(dataset_info("fmb").classes) != pretrained.classes
    source, started = pretrained.state_dict(), model.state_dict()
    trained = [key for key in started if not key.startswith(HEADS)]
    assert any(key.startswith("backbone.") for key in trained)
    assert any(key.startswith("fusions.2.") for key in trained)
    for key in trained:
        assert torch.equal(started[key], source[key]), key


@pytest.mark.slow
def test_backbone_and_fusions_are_trained_and_the_heads_are_not(finished):
    torch.manual_seed(0)  # the seed of the run
    before = tectum.create_model("virmfs_b0", **ARGUMENTS).state_dict()
    after = tectum.load(finished / "last").state_dict()
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert not [key for key in changed if key.startswith(HEADS)]
    assert {key for key in before if key.endswith("weight") and not key.startswith(HEADS)} <= changed


def test_validation_leaves_frozen_parts_frozen(scenes):
    config = small_config(scenes, model={"frozen": ["fusions"]})
    _, pairs = training_tables(config.data, config.run)
    model = create_network(config.model, "virmfs", "virmfs_pretrain", dataset_info("msrs"), seed=0)
    autoencoder = MaskedAutoencoder(model)
    validate(autoencoder, pairs, config, Accelerator(cpu=True))
    assert autoencoder.training
    assert model.backbone.training
    assert not model.fusions.training


def test_crops_of_one_size_are_required(scenes, tmp_path):
    config = small_config(scenes, data={"augmentation": {}})
    with pytest.raises(ConfigError, match=r"virmfs_pretrain needs crops of one size: set data\.augmentation\.crop"):
        train(config, tmp_path)


def test_other_networks_are_refused(scenes, tmp_path):
    config = small_config(scenes, model={"name": "mafs_r18", "arguments": {}})
    with pytest.raises(ConfigError, match=r"virmfs_pretrain trains the virmfs_\* networks, not 'mafs_r18'"):
        train(config, tmp_path)


@pytest.mark.parametrize("key", ["decoder=shared", "mix_batch=true"])
def test_options_of_mafs_are_unknown(key):
    with pytest.raises(ConfigError, match=f"unknown key 'reconstruction.{key.split('=')[0]}'"):
        read_config(VirmfsPretrainConfig, CONFIGS / "virmfs_b0_pretrain.yaml", [f"reconstruction.{key}"])


def test_shipped_config_fits_the_run_that_starts_from_it():
    first = read_config(VirmfsPretrainConfig, CONFIGS / "virmfs_b0_pretrain.yaml")
    second = read_config(VirmfsConfig, CONFIGS / "virmfs_b0_msrs.yaml")
    assert (first.model.name, first.model.arguments) == (second.model.name, second.model.arguments)
    assert first.data.augmentation.crop % 32 == 0
    assert first.data.holdout == second.data.holdout
    assert {source.root for source in first.data.train} == {source.root for source in second.data.train}
