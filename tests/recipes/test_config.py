import pytest
from pydantic import BaseModel

from tectum.errors import ConfigError
from tectum.recipes.reading import read_config
from tectum.recipes.virmfs import VirmfsConfig

MINIMAL = """
data: {train: [{root: somewhere}]}
optimiser: {lr: 0.001}
run: {epochs: 1, batch: 2}
"""


def read(tmp_path, text, *overrides):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return read_config(VirmfsConfig, path, list(overrides))


def test_overrides_reach_lists_and_missing_sections(tmp_path):
    config = read(tmp_path, MINIMAL, "run.epochs=7", "data.train.0.root=else", "meta.enabled=false", "run.ema=0.5")
    assert (config.run.epochs, str(config.data.train[0].root), config.meta.enabled) == (7, "else", False)
    assert config.run.ema == 0.5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.epoch=3", r"unknown key 'run\.epoch'; did you mean 'epochs'\?"),
        ("colour=red", r"unknown key 'colour'; known keys: model, data, loss"),
        ("data.train.0.wheels=4", r"unknown key 'data\.train\.0\.wheels'; known keys: dataset, root"),
        ("data.augmentation.crops=4", "did you mean 'crop'"),
        ("run.batch=0", r"run\.batch: Input should be greater than or equal to 1"),
        ("meta.schedule=never", r"meta\.schedule: Input should be 'first_release' or 'second_release'"),
        ("data.augmentation.turn=0.5", r"data\.augmentation: Value error, turn needs crop"),
        ("run.epochs", "is no override: write key=value"),
        ("data.train.4.root=x", "points to nothing"),
        ("run.epochs.deeper=1", "points to nothing"),
    ],
)
def test_wrong_keys_give_one_line(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, MINIMAL, override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not readable YAML"), ("- 1", "must be a mapping"), ("", "mapping")]
)
def test_unreadable_files_are_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=rf"c\.yaml'.*{message}"):
        read(tmp_path, text)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no config file '.*none\.yaml'"):
        read_config(BaseModel, tmp_path / "none.yaml")


def write_files(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)


def test_sections_of_a_base_are_merged_and_lists_replaced(tmp_path):
    (tmp_path / "sub").mkdir()
    write_files(
        tmp_path,
        whole=MINIMAL + "loss: {gradient: 7, intensity: 8, class_weights: [1, 2]}\nmeta: {period: 9}\n",
        c="base: sub/middle.yaml\nrun: {epochs: 5}\nloss: {class_weights: null}\n",
    )
    write_files(
        tmp_path / "sub",
        middle="base: ../whole.yaml\nrun: {epochs: 4, batch: 3}\ndata: {train: [{root: a}, {root: b}]}\n",
    )
    config = read_config(VirmfsConfig, tmp_path / "c.yaml", ["loss.gradient=6"])
    assert (config.run.epochs, config.run.batch, config.optimiser.lr, config.meta.period) == (5, 3, 0.001, 9)
    assert [str(source.root) for source in config.data.train] == ["a", "b"]
    assert (config.loss.gradient, config.loss.intensity, config.loss.class_weights) == (6, 8, None)


def test_later_bases_go_over_earlier_ones(tmp_path):
    write_files(tmp_path, one=MINIMAL, two="run: {epochs: 8}\ndata: {holdout: 0.5}", c="base: [one.yaml, two.yaml]")
    config = read_config(VirmfsConfig, tmp_path / "c.yaml")
    assert (config.run.epochs, config.run.batch, config.data.holdout) == (8, 2, 0.5)
    assert str(config.data.train[0].root) == "somewhere"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"c": "base: gone.yaml"}, r"no config file '.*gone\.yaml', which '.*c\.yaml' names as its base"),
        ({"c": "base: b.yaml", "b": "base: c.yaml"}, r"c\.yaml' is its own base: .*c\.yaml -> .*b\.yaml -> .*c\.yaml"),
        ({"c": "base: c.yaml"}, r"c\.yaml' is its own base"),
        ({"c": "base: b.yaml", "b": "- 1"}, r"b\.yaml' must be a mapping"),
        ({"c": "base: [1]"}, r"c\.yaml': base must be a file name or a list of them, but is \[1\]"),
        ({"c": "base:"}, r"c\.yaml': base must be a file name or a list of them, but is None"),
        ({"c": "base: b.yaml", "b": MINIMAL + "colour: red"}, "unknown key 'colour'"),
    ],
)
def test_wrong_bases_give_one_line(tmp_path, texts, message):
    write_files(tmp_path, **texts)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(VirmfsConfig, tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)
