import builtins
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, LazyConfig, instantiate
from omegaconf import DictConfig

from gfocal.config import config_settings, load_config, set_device


def test_files_that_are_no_configs(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no config file 'nowhere\.py'"):
        load_config("nowhere.py")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match=r"must end in \.py, \.yaml or \.yml"):
        load_config(tmp_path / "a.txt")
    (tmp_path / "bad.py").write_text("a = (")
    with pytest.raises(SyntaxError, match=r"bad\.py"):
        load_config(tmp_path / "bad.py")
    (tmp_path / "raises.py").write_text("raise ValueError('on purpose')")
    original = builtins.__import__
    with pytest.raises(ValueError, match="on purpose"):
        load_config(tmp_path / "raises.py")
    assert builtins.__import__ is original


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere", "{path}:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("from gfocal import nope", "{path}:1: ImportError: cannot import name 'nope'"),
        ("a = 1\nb = dict(x=c)", "{path}:2: NameError: name 'c' is not defined"),
        ("from .other import model", "{folder}/other.py:2: NameError: name 'x' is not defined"),
        ("from .good import modle", "{path}:1: KeyError: 'modle'"),
        ("from .good import model\nmodel.a.b = 1", "{path}:2: ConfigAttributeError"),
    ],
)
def test_a_config_that_fails_names_the_line(tmp_path: Path, text, message):
    (tmp_path / "other.py").write_text("model = dict()\nmodel.update(x)\n")
    (tmp_path / "good.py").write_text("model = dict()\n")
    path = tmp_path / "a.py"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        load_config(path)
    assert str(error.value).startswith(message.format(path=path, folder=tmp_path))
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is not None


def test_an_error_of_code_that_a_config_calls_is_left_alone(tmp_path: Path):
    path = tmp_path / "a.py"
    path.write_text("from tests.config.test_files import fails\nmodel = fails()\n")
    with pytest.raises(ZeroDivisionError):
        load_config(path)


def fails():
    return 1 / 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected keys, such as MODEL"),
        (b"- a\n- b\n", "expected keys, such as MODEL"),
        (b"hello\n", "expected keys, such as MODEL"),
        (b"MODEL:\n", "MODEL has no keys; expected some, such as MODEL."),
        (b"SOLVER: {MAX_ITER: 3}\nMODEL: 5\n", "MODEL has no keys"),
        (
            b"MODEL:\n  GFL:\n",
            "MODEL.GFL has no keys; expected some, such as MODEL.GFL.NUM_CLASSES",
        ),
        (b"MODEL:\n\tX: 1\n", "found character '\\t'"),
        (b"train: {max_iter: 3\n", "while parsing a flow mapping"),
        (bytes(range(128, 256)), "unacceptable character"),
        (b"_BASE_: other.yaml\nVERSION: 2\n", "found character '\\t'"),
    ],
)
def test_yaml_files_that_are_no_configs(tmp_path: Path, content, message):
    (tmp_path / "other.yaml").write_text("MODEL:\n\tX: 1\n")
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    (tmp_path / "a.py").write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match=r"a\.py: 'utf-8' codec can't decode"):
        load_config(tmp_path / "a.py")


def test_a_saved_lazy_config_loads_again(toy_config, tmp_path: Path):
    cfg = toy_config("data.num_classes=4")
    LazyConfig.save(cfg, str(tmp_path / "saved.yaml"))
    again = load_config(tmp_path / "saved.yaml", ["train.max_iter=11"])
    assert isinstance(again, DictConfig)
    assert again.train.max_iter == 11
    assert instantiate(again.model).num_classes == 4


def test_yacs(tmp_path: Path):
    (tmp_path / "base.yaml").write_text("MODEL:\n  META_ARCHITECTURE: GFL\n")
    path = tmp_path / "a.yaml"
    path.write_text("_BASE_: base.yaml\nMODEL:\n  GFL:\n    NUM_CLASSES: 7\n")
    cfg = load_config(path, ["SOLVER.MAX_ITER", "12", "OUTPUT_DIR=/x", "SOLVER.STEPS", "(3, 5)"])
    assert isinstance(cfg, CfgNode)
    assert (cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.GFL.NUM_CLASSES) == ("GFL", 7)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (12, (3, 5))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert config_settings(cfg) == ("/x", "", device)
    set_device(cfg, "cpu")
    assert config_settings(cfg).device == "cpu"

    with pytest.raises(ValueError, match="SOLVER.MAX_ITR.*did you mean SOLVER.MAX_ITER"):
        load_config(path, ["SOLVER.MAX_ITR", "12"])
    with pytest.raises(ValueError, match="solver.max_iter.*did you mean SOLVER.MAX_ITER"):
        load_config(path, ["solver.max_iter=12"])
    with pytest.raises(ValueError, match="SOLVER.MAX_ITER.*has no value"):
        load_config(path, ["SOLVER.MAX_ITER"])
    for override, types in (
        ("SOLVER.MAX_ITER=abc", "int.*str"),
        ("SOLVER.MAX_ITER=3.5", "int.*float"),
        ("MODEL.GFL.NUM_CLASSES=True", "int.*bool"),
        ("SOLVER.AMP.ENABLED=1", "bool.*int"),
        ("SOLVER.STEPS=5", "tuple.*int"),
    ):
        with pytest.raises(ValueError, match=f"{types}.* key: {override.split('=')[0]}$"):
            load_config(path, [override])
    cfg = load_config(path, ["SOLVER.MAX_ITER=1e4", "SOLVER.BASE_LR", "1"])
    assert repr((cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR)) == "(10000, 1.0)"
    path.write_text("SOLVER:\n  MAX_ITER: abc\n")
    with pytest.raises(ValueError, match=r"a\.yaml: .*int.*str.*abc.* key: SOLVER.MAX_ITER$"):
        load_config(path)
    path.write_text("MODEL:\n  GFL:\n    NUM_CLASES: 7\n")
    with pytest.raises(
        ValueError, match=r"NUM_CLASES.*a\.yaml.*did you mean MODEL.GFL.NUM_CLASSES"
    ):
        load_config(path)
