import subprocess
import sys

import tectum

PUBLIC = {
    "DEFAULT_WEIGHTS", "Output", "Predictor", "Result", "TectumError", "__version__",
    "create_model", "evaluate", "list_models", "list_weights", "load",
}  # fmt: skip


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )


def test_public_names_are_frozen():
    assert set(tectum.__all__) == PUBLIC
    assert all(getattr(tectum, name) is not None for name in PUBLIC)


def test_import_is_quiet_and_light():
    result = run(
        "import sys, tectum, tectum.cli, tectum.predict.predictor, tectum.data.pair\n"
        "heavy = {'torch', 'torchvision', 'accelerate', 'torchmetrics', 'matplotlib', 'transformers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_models_and_prediction_need_no_training_extra():
    result = run(
        "import sys\n"
        "for name in ('accelerate', 'tensorboard', 'torch.utils.tensorboard'): sys.modules[name] = None\n"
        "import tectum, tectum.predict\n"
        "tectum.create_model('virmfs_b0')"
    )
    assert result.returncode == 0, result.stderr


def test_training_without_its_extra_says_which(tmp_path):
    result = run(
        "import sys\n"
        "sys.modules['accelerate'] = None\n"
        "from tectum.cli import main\n"
        f"sys.argv = ['tectum', 'train', 'virmfs', '--config', {str(tmp_path / 'c.yaml')!r}]\n"
        "main()"
    )
    assert result.returncode == 2
    assert "pip install 'tectum[train]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_unknown_attribute_is_an_attribute_error():
    assert not hasattr(tectum, "nothing")
