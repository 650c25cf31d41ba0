"""The options of a training: declared once, refused everywhere when misspelt."""

import copy
import dataclasses
import pickle
import re
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import detectron2
import numpy as np
import pytest
from detectron2.config import LazyConfig, get_cfg
from omegaconf import DictConfig
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from gfocal import model_zoo
from gfocal.config import (
    TrainOptions,
    add_gfocal_config,
    apply_overrides,
    check_config,
    check_train,
    config_settings,
    load_config,
    train_node,
    train_options,
)
from gfocal.config.declaring import about, declared, table
from gfocal.config.options import OPTIONS, check_best_metric

DOCS = Path(__file__).parents[2] / "docs"


def write(folder: Path, line: str) -> Path:
    """A config on the shipped train, with a line of its own: the second of the file."""
    path = folder / "mine.py"
    path.write_text(f"train = __import__('gfocal.config').config.train_node()\n{line}\n")
    return path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "train.ema_decya = 0.9",
            "unknown key 'train.ema_decya' in the config; did you mean train.ema_decay?",
        ),
        ("train.checkpointer.max_to_kep = 3", "did you mean train.checkpointer.max_to_keep?"),
        ("train.update(max_itr=3)", "did you mean train.max_iter?"),
        ("train.amp.update({'enable': True})", "did you mean train.amp.enabled?"),
        ("x = train.seeds", "did you mean train.seed?"),
        (
            "train.max_iter = '${nowhere}'\nx = train.max_iter",
            "train.max_iter: InterpolationKeyError: Interpolation key 'nowhere' not found; expect",
        ),
        (
            "import omegaconf\nomegaconf.OmegaConf.create({'a': '${b}'}).a",
            ": InterpolationKeyError: Interpolation key 'b' not found",
        ),
        ("other = dict()\nother.no = 1", "AttributeError: 'dict' object"),
    ],
)
def test_a_file_that_misspells_is_refused_where_it_does(tmp_path, line, message):
    path = write(tmp_path, line)
    with pytest.raises(ValueError) as error:
        load_config(path)
    assert re.match(rf"{re.escape(str(path))}:[23]: ", str(error.value))
    assert message in str(error.value)
    assert "full_key" not in str(error.value) and "object_type" not in str(error.value)


def test_a_misspelt_key_is_refused_in_code_and_by_detectron2_too(tmp_path):
    original = model_zoo.get_config("quick_start/shapes_gflv2.py")
    for cfg in (original, copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        with pytest.raises(OmegaConfBaseException, match="Key 'ema_decya' not in 'TrainOptions"):
            cfg.train.ema_decya = 0.9
        with pytest.raises(OmegaConfBaseException, match="Key 'ema_decya' not in 'TrainOptions"):
            LazyConfig.apply_overrides(cfg, ["train.ema_decya=0.9"])
    with pytest.raises(OmegaConfBaseException, match="Key 'max_itr' not in 'TrainOptions"):
        LazyConfig.load(str(write(tmp_path, "train.max_itr = 1")))


def test_a_key_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from omegaconf import open_dict\n"
        "from gfocal.config import train_node\n"
        "train = train_node()\n"
        "with open_dict(train):\n"
        "    train.note = 'x'\n"
    )
    cfg = load_config(path, ["+train.number=3", "+train.group={a:1}", "+train.ddp.bucket_cap_mb=1"])
    assert (cfg.train.note, cfg.train.number, cfg.train.group.a) == ("x", 3, 1)
    for again in (copy.deepcopy(cfg), pickle.loads(pickle.dumps(cfg))):
        assert again == cfg
        check_train(again)
        with pytest.raises(ConfigKeyError):
            again.train["another"] = 1
    assert apply_overrides(cfg, ["train.number=4"]).train.number == 4  # now it is there
    with pytest.raises(ValueError, match=r"'train\.nubmer=5'; did you mean train\.number"):
        apply_overrides(cfg, ["train.nubmer=5"])
    apply_overrides(cfg, ["+train.ema_decya=0.9"])
    with pytest.raises(ValueError, match=r"did you mean train\.ema_decay"):
        check_train(cfg)


def test_a_group_can_be_set_as_a_whole():
    train = train_node(checkpointer={"max_to_keep": 7}, max_iter=30)
    assert train.checkpointer == {"period": 5000, "max_to_keep": 7, "file_prefix": "model"}
    train.checkpointer = dict(period="${max_iter}")
    assert train.checkpointer == {"period": 30}
    cfg = DictConfig({"train": train_node(checkpointer={"max_to_keep": 7})})
    cfg.train.checkpointer = dict(period=3)
    cfg.train.ddp = cfg.train.amp = None
    check_train(cfg)
    options = train_options(cfg)
    assert vars(options.checkpointer) == {"period": 3, "max_to_keep": None, "file_prefix": "model"}
    assert options.amp.enabled is False
    cfg.train.checkpointer.max_to_kep = 3
    with pytest.raises(ValueError, match=r"did you mean train\.checkpointer\.max_to_keep"):
        check_train(cfg)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("amp.enabled", 3, "true or false"),
        ("deterministic", "off", "true or false"),
        ("validation_loss", 1, "true or false"),
        ("max_iter", "100", "an integer, at least 1"),
        ("max_iter", 100.0, "an integer, at least 1"),
        ("max_iter", None, "an integer, at least 1"),
        ("max_iter", [100], "an integer, at least 1"),
        ("seed", True, "an integer"),
        ("ema_decay", "0.9", "a number between 0 and 1, or 0"),
        ("best_metric", 5, "a string"),
        ("device", 0, "a string, or null"),
        ("output_dir", None, "a string"),
        ("checkpointer.period", "3", "an integer, at least 1"),
        ("checkpointer.max_to_keep", "3", "an integer, at least 1, or null"),
    ],
)
def test_a_value_of_another_kind_is_refused_and_never_converted(tmp_path, key, value, expected):
    parent, _, name = key.rpartition(".")
    changed = train_node(**({parent: {name: value}} if parent else {name: value}))
    loaded = load_config(write(tmp_path, f"train.{key} = {value!r}"))
    for cfg in (DictConfig({"train": changed}), loaded):
        with pytest.raises(ValueError) as error:
            check_train(cfg)
        assert str(error.value) == f"train.{key} is {value!r}; expected {expected}"
    if value is None:
        check_train(apply_overrides(loaded, [f"train.{key}={'x' if 'dir' in key else 3}"]))
        apply_overrides(loaded, [f"train.{key}=null"])
        with pytest.raises(ValueError, match=rf"^train\.{key} is None; expected {expected}$"):
            check_train(loaded)


def test_a_numpy_integer_is_an_integer():
    cfg = DictConfig({"train": train_node(seed=np.int64(3))})
    cfg.train.max_iter = np.int64(5)
    for again in (cfg, copy.deepcopy(cfg), pickle.loads(pickle.dumps(cfg))):
        check_train(again)
        assert (train_options(again).max_iter, train_options(again).seed) == (5, 3)


def test_bounds_are_checked():
    train = train_node()
    check_train(DictConfig({"train": train}))
    for key, value in (("ema_decay", 1), ("max_iter", 0), ("best_mode", "most"), ("log_period", 0)):
        changed = train_node(**{key: value})
        with pytest.raises(ValueError, match=rf"train\.{key} is .*; expected"):
            check_train(DictConfig({"train": changed}))


def test_detectron2s_own_train_is_none_of_ours():
    """A config that imports Detectron2's configs/common/train.py; keys that it lacks fall back."""
    # By its path: detectron2.model_zoo of current main needs an old setuptools.
    path = Path(detectron2.__file__).parent / "model_zoo/configs/common/train.py"
    cfg = DictConfig({"train": LazyConfig.load(str(path)).train}, flags={"allow_objects": True})
    cfg.train.note = "x"
    check_config(cfg)
    options = train_options(cfg)
    assert (options.max_iter, options.eval_period, options.checkpointer.max_to_keep) == (
        90000,
        5000,
        100,
    )
    assert (options.seed, options.ema_decay, options.best_metric) == (-1, 0.0, "")
    cfg.train.ema_decya = 0.9
    with pytest.raises(ValueError, match=r"did you mean train\.ema_decay"):
        check_config(cfg)


def test_what_a_config_does_not_say_falls_back_to_the_declaration():
    for cfg in (DictConfig({}), DictConfig({"train": {}}), DictConfig({"train": train_node()})):
        assert train_options(cfg) == TrainOptions()
    assert config_settings(DictConfig({})) == ("./output", "", None)
    cfg = DictConfig({"train": {"checkpointer": {"period": 3}, "seed": 4, "eval_period": "${n}"}})
    cfg.n = 6
    options = train_options(cfg)
    assert (options.seed, options.eval_period) == (4, 6)
    # Checkpoints that nobody asked to delete stay.
    assert vars(options.checkpointer) == {"period": 3, "max_to_keep": None, "file_prefix": "model"}


def test_yacs_twins():
    plain, cfg = get_cfg(), get_cfg()
    add_gfocal_config(cfg)
    newer = "FLOAT32_PRECISION"  # not in Detectron2 0.5
    for option in OPTIONS:
        if option.added:
            assert attrgetter(option.yacs)(cfg) == option.default
            with pytest.raises(AttributeError):
                attrgetter(option.yacs)(plain)
        elif option.yacs and option.yacs != newer:
            attrgetter(option.yacs)(plain)
    text = (
        "SEED 3 SOLVER.AMP.ENABLED True SOLVER.CHECKPOINT_PERIOD 7 TEST.BEST_METRIC x OUTPUT_DIR o"
    )
    text += " SOLVER.EMA_DECAY 0.5 MODEL.DEVICE cpu TEST.EARLY_STOP_PATIENCE 2"
    cfg.merge_from_list(text.split(" "))
    expected = TrainOptions(
        output_dir="o",
        device="cpu",
        max_iter=cfg.SOLVER.MAX_ITER,
        seed=3,
        ema_decay=0.5,
        best_metric="x",
        early_stop_patience=2,
    )
    expected.amp.enabled = True
    expected.checkpointer.period = 7
    assert train_options(cfg) == expected
    assert train_options(plain).ema_decay == 0.0


@pytest.mark.parametrize(("prefix", "key"), [("ema/", "EMA_DECAY"), ("validation/", "VALIDATION")])
def test_the_best_metric_has_to_be_measured(prefix, key):
    options = TrainOptions(best_metric=f"{prefix}bbox/AP")
    with pytest.raises(ValueError, match=key):
        check_best_metric(options)
    check_best_metric(dataclasses.replace(options, ema_decay=0.9, validation_loss=True))


def test_a_declaration():
    @dataclasses.dataclass
    class Inner:
        part: float = dataclasses.field(default=0.5, metadata=about("share", least=0, below=1))

    @dataclasses.dataclass
    class Outer:
        count: int = dataclasses.field(default=1, metadata=about("how many", least=1, yacs="N"))
        inner: Inner = dataclasses.field(default_factory=Inner)

    count, part = declared(Outer)
    assert (count.key, part.key, count.yacs, part.yacs) == ("count", "inner.part", "N", None)
    assert [count.kind.fits(x) for x in (1, 0, True, 1.0, "1", None)] == [True] + 5 * [False]
    assert [part.kind.fits(x) for x in (0, 0.99, 1, -0.1, False)] == [True, True] + 3 * [False]
    assert table([count, part], "x.") == (
        "| LazyConfig | yacs | default | value | |\n"
        "|---|---|---|---|---|\n"
        "| `x.count` | `N` | `1` | an integer, at least 1 | how many |\n"
        "| `x.inner.part` |  | `0.5` | a number between 0 and 1, or 0 | share |"
    )


def test_the_docs_have_the_table():
    text = (DOCS / "training.md").read_text()
    written = text.partition("<!-- options -->\n")[2].partition("\n<!-- /options -->")[0]
    assert written == table(OPTIONS, "train.")


def test_the_wing_does_not_need_the_engine():
    code = (
        "import sys, gfocal.config, gfocal.config.model_zoo\n"
        "above = ('gfocal.engine', 'gfocal.weights', 'gfocal.inspect', 'gfocal.cli')\n"
        "print([name for name in sys.modules if name.startswith(above)])"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
