import shutil

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from small_mafs import pretraining_step, small_sections

import tectum
from tectum.data.masking import MaskedPair
from tectum.errors import ConfigError, InputError
from tectum.losses.reconstruction import reconstruction_losses
from tectum.models.base import luminance
from tectum.models.mafs import MaskedAutoencoder
from tectum.recipes.mafs_pretrain import (
    MafsPretrainConfig,
    ReconstructionConfig,
    reconstruction_terms,
    train,
    validate,
)
from tectum.recipes.pairs import training_tables
from tectum.recipes.reading import CONFIGS, read_config

TERMS = {f"{modality}_{term}" for modality in ("visible", "infrared") for term in ("intensity", "gradient")}


def small_config(scenes, **changes):
    own = {
        "data": {"augmentation": {"crop": 64, "flip": 0.6667, "turn": 0.75}},
        "reconstruction": {"patch": 16},
        "optimiser": {"lr": 1e-3, "warmup_from": 1e-4},
    }
    return MafsPretrainConfig.model_validate(small_sections(scenes, own, changes))


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory):
    """Directory of a finished run."""
    directory = tmp_path_factory.mktemp("finished")
    train(small_config(scenes), directory)
    yield directory
    shutil.rmtree(directory)


def pretrained_step(decoder, random_batch):
    """The autoencoder with the gradients of one step, and the terms."""
    torch.manual_seed(0)
    autoencoder = MaskedAutoencoder(tectum.create_model("mafs_r18"), decoder)
    config = ReconstructionConfig(decoder=decoder, patch=16)
    return autoencoder, pretraining_step(autoencoder, random_batch(), config, Accelerator(cpu=True))


def test_every_encoder_parameter_gets_a_gradient_from_separate_reconstructions(random_batch):
    autoencoder, terms = pretrained_step("separate", random_batch)
    assert terms.keys() == TERMS
    own = {name: p for name, p in autoencoder.named_parameters() if not name.startswith("model.")}
    assert own
    for name, p in (autoencoder.model.role("pretraining") | own).items():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 0, name


@pytest.mark.slow
def test_shared_reconstruction_trains_no_deep_encoder_stage(random_batch):
    """The defect of the released objective."""
    autoencoder, terms = pretrained_step("shared", random_batch)
    assert terms.keys() == TERMS
    for encoder in (autoencoder.model.visible_encoder, autoencoder.model.infrared_encoder):
        assert all(p.grad.abs().sum() > 0 for p in encoder.stages[0].parameters())
        assert all(p.grad is None for p in encoder.stages[1:].parameters())


def test_terms_compare_each_modality_where_it_was_hidden(random_batch):
    batch = random_batch()
    left = torch.zeros(2, 1, 64, 64)
    left[..., :20] = 1
    masked = MaskedPair(batch.visible, batch.infrared, left, 1 - left)
    shown = (torch.full_like(batch.infrared, 0.25), torch.full_like(batch.infrared, 0.75))
    terms = reconstruction_terms(shown, batch, masked, ReconstructionConfig(intensity=3, gradient=7))
    visible = reconstruction_losses(shown[0], luminance(batch.visible), left)
    infrared = reconstruction_losses(shown[1], batch.infrared, 1 - left)
    assert terms == {
        "visible_intensity": 3 * visible["intensity"],
        "visible_gradient": 7 * visible["gradient"],
        "infrared_intensity": 3 * infrared["intensity"],
        "infrared_gradient": 7 * infrared["gradient"],
    }
    mixed = reconstruction_terms(shown, batch, masked, ReconstructionConfig(intensity=3, gradient=7, mix_batch=True))
    assert mixed["visible_intensity"] == terms["visible_intensity"]
    expected = reconstruction_losses(shown[0], luminance(batch.visible), left, mix_batch=True)
    assert mixed["visible_gradient"] == 7 * expected["gradient"]


def test_network_sees_the_masked_pair_and_the_loss_the_whole_one(random_batch):
    class Peeking(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, *seen):
            self.seen = seen
            # Shows exactly what was hidden.
            return self.scale * luminance(batch.visible), self.scale * batch.infrared

    batch, network = random_batch(), Peeking()
    torch.manual_seed(0)
    terms = pretraining_step(network, batch, ReconstructionConfig(patch=16), Accelerator(cpu=True))
    assert terms == dict.fromkeys(TERMS, 0)
    for seen, image in zip(network.seen, batch[:2], strict=True):
        kept = (seen == image).float().mean()
        assert 0.05 < kept < 0.95


@pytest.mark.slow
def test_expected_losses(finished, log_of):
    """Losses of a fixed tiny run; a change here means that training itself has changed."""
    records = [record for record in log_of(finished) if "validation" not in record]
    assert [record["step"] for record in records] == list(range(1, 7))
    for name, expected in EXPECTED_LOSSES.items():
        assert [record[name] for record in records] == pytest.approx(expected, rel=0.02), name


EXPECTED_LOSSES = {
    "visible_intensity": [0.4316, 0.4350, 0.4219, 0.3576, 0.4126, 0.6928],
    "visible_gradient": [0.0971, 0.1091, 0.0759, 0.0761, 0.0828, 0.1441],
    "infrared_intensity": [0.9909, 0.6725, 1.1409, 1.3845, 0.4337, 0.3352],
    "infrared_gradient": [0.1039, 0.0726, 0.1244, 0.1466, 0.0610, 0.0467],
}


@pytest.mark.slow
def test_run_directory_holds_what_explains_it(scenes, finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {"config.yaml", "environment.json", "log.jsonl", "tensorboard", "checkpoint.pt", "pictures", "last"}
    assert read_config(MafsPretrainConfig, finished / "config.yaml") == small_config(scenes)
    metadata = tectum.load(finished / "last").metadata
    assert metadata["dataset"] == "msrs"
    assert len(metadata["class_names"]) == 9


@pytest.mark.slow
def test_validation_logs_the_terms_and_keeps_a_picture(finished, log_of):
    (record,) = [record for record in log_of(finished) if "validation" in record]
    assert record["step"] == 6
    assert record["validation"].keys() == TERMS
    assert record["validation"]["visible_intensity"] > 0
    (picture,) = (finished / "pictures").iterdir()
    assert picture.name == "reconstruction_000006.png"
    width, height = Image.open(picture).size
    assert width == 6 * 64 + 5 * 4  # six columns
    assert 2 * 64 < height < 3 * 64  # two pairs under their captions


@pytest.mark.slow
def test_pretrained_network_starts_one_with_other_classes(finished):
    pretrained = tectum.load(finished / "last")
    torch.manual_seed(1)
    model = tectum.create_model("mafs_r18", classes=5)
    model.initialise(pretrained)
    assert model.classes == 5
    source = pretrained.state_dict()
    names = model.role("pretraining")
    assert any("stages.3" in name for name in names)
    for name, p in names.items():
        assert torch.equal(p, source[name]), name


@pytest.mark.slow
def test_the_encoder_is_trained_and_the_decoders_are_not(finished):
    torch.manual_seed(0)  # the seed of the run
    before = tectum.create_model("mafs_r18").state_dict()
    after = tectum.load(finished / "last").state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert {"visible_encoder.stages.3.0.conv1.weight", "infrared_encoder.stages.3.0.bn1.running_mean"} <= changed
    assert not [key for key in changed if key.startswith(("fusion_decoder.", "segmentation_decoder.transformer."))]


def test_validation_masks_the_same_at_every_call_and_leaves_training_alone(scenes):
    config, accelerator = small_config(scenes), Accelerator(cpu=True)
    _, pairs = training_tables(config.data, config.run)
    torch.manual_seed(0)
    autoencoder = MaskedAutoencoder(tectum.create_model("mafs_r18"))
    before = {key: value.clone() for key, value in autoencoder.state_dict().items()}
    state = torch.get_rng_state()
    first, picture = validate(autoencoder, pairs, config, accelerator)
    assert torch.equal(torch.get_rng_state(), state)
    assert autoencoder.training
    assert autoencoder.model.training
    assert all(torch.equal(value, before[key]) for key, value in autoencoder.state_dict().items())
    torch.manual_seed(1)
    again, picture_again = validate(autoencoder, pairs, config, accelerator)
    assert first == again
    assert picture.tobytes() == picture_again.tobytes()


@pytest.mark.slow
def test_killed_and_resumed_gives_the_uninterrupted_weights(scenes, whole_and_broken, assert_same_weights):
    settings = {"checkpoint_minutes": 0.0001, "validate_every": 1, "ema": 0.5}
    small = {"augmentation": {"crop": 32, "flip": 0.5, "turn": 0.75}}
    whole, broken = whole_and_broken(small_config(scenes, run=settings, data=small), kills=(1, 4))
    assert_same_weights(whole / "last", broken / "last")
    states = [torch.load(d / "checkpoint.pt", weights_only=True)["autoencoder"] for d in (whole, broken)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    for picture in (whole / "pictures").iterdir():
        assert picture.read_bytes() == (broken / "pictures" / picture.name).read_bytes()


def test_a_batch_of_one_gets_one_sentence():
    autoencoder = MaskedAutoencoder(tectum.create_model("mafs_r18"))
    with pytest.raises(InputError, match="at least two pairs"):
        autoencoder(torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64))


def test_crops_of_one_size_are_required(scenes, tmp_path):
    config = small_config(scenes)
    uncropped = config.data.model_copy(
        update={"augmentation": config.data.augmentation.model_copy(update={"crop": None})}
    )
    with pytest.raises(ConfigError, match=r"set data\.augmentation\.crop to a multiple of 32"):
        train(config.model_copy(update={"data": uncropped}), tmp_path)


def test_other_networks_are_refused(scenes, tmp_path):
    with pytest.raises(ConfigError, match=r"mafs_pretrain trains the mafs_\* networks, not 'virmfs_b0'"):
        train(small_config(scenes, model={"name": "virmfs_b0"}), tmp_path)


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("mafs_*pretrain.yaml")))
def test_shipped_configs_are_valid(name):
    config = read_config(MafsPretrainConfig, CONFIGS / name)
    assert config.data.augmentation.crop % 32 == 0
    assert config.model.name in tectum.list_models()
