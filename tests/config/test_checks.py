import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from gfocal import model_zoo
from gfocal.config import add_gfocal_config, check_config, check_model
from gfocal.engine import LazyTrainer


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("amp", True, "train.amp is True; expected keys"),
        ("amp", {"enable": True}, "'train.amp.enable' in the config; did you mean train.amp.enab"),
        ("amp.enabled", 1, "train.amp.enabled is 1; expected true or false"),
        ("deterministic", "False", "train.deterministic is 'False'; expected true or false"),
        ("validation_loss", "False", "train.validation_loss is 'False'; expected true or false"),
        ("channels_last", "no", "train.channels_last is 'no'; expected true or false"),
        ("ddp.find_unused_paramters", True, "did you mean train.ddp.find_unused_parameters"),
        ("ddp.find_unused_parameters", "False", "expected true or false"),
        ("ddp.fp16_compression", 1, "train.ddp.fp16_compression is 1; expected true or false"),
        ("ddp.broadcast_buffers", "False", "train.ddp.broadcast_buffers is 'False'; expected "),
        ("checkpointer", 5, "train.checkpointer is 5; expected keys"),
        ("checkpointer", {"max_to_keep": 3}, "train.checkpointer without its period"),
        ("checkpointer.max_to_kep", 3, "did you mean train.checkpointer.max_to_keep"),
        ("checkpointer.max_to_keep", 0, "is 0; expected an integer, at least 1, or null"),
        ("checkpointer.period", None, "train.checkpointer.period is None; expected an integer"),
        ("checkpointer.period", 0, "train.checkpointer.period is 0; expected an integer, at le"),
        ("eval_period", "2", "train.eval_period is '2'; expected an integer"),
        ("log_period", "20", "train.log_period is '20'; expected an integer, at least 1"),
        ("max_iter", "3", "train.max_iter is '3'; expected an integer, at least 1"),
        ("max_iter", 3.0, "train.max_iter is 3.0; expected an integer, at least 1"),
        ("max_iter", True, "train.max_iter is True; expected an integer"),
        ("max_iter", -5, "train.max_iter is -5; expected an integer, at least 1"),
        ("max_iter", "???", "train.max_iter is None; expected an integer"),
        ("max_iter", "${data.folder}", "/images'; expected an integer, at least 1"),
        (
            "max_iter",
            "${nowhere}",
            "train.max_iter: Interpolation key 'nowhere' not found; expected an integer, at least",
        ),
        ("seed", 1.5, "train.seed is 1.5; expected an integer"),
        ("seed", None, "train.seed is None; expected an integer"),
        ("ema_decay", "0.9", "train.ema_decay is '0.9'; expected a number between 0 and 1, or 0"),
        ("ema_decay", 1, "train.ema_decay is 1; expected a number between 0 and 1, or 0"),
        ("best_mode", "largest", 'train.best_mode is \'largest\'; expected "max" or "min"'),
        ("early_stop_patience", -1, "train.early_stop_patience is -1; expected an integer"),
        ("output_dir", None, "train.output_dir is None; expected a string"),
        ("ema", 0.9, "did you mean train.ema_decay?"),
        ("patience", 3, "did you mean train.early_stop_patience?"),
        ("val_loss", True, "did you mean train.validation_loss?"),
        ("amp_enabled", True, "did you mean train.amp.enabled?"),
        ("evaluation_period", 5, "did you mean train.eval_period?"),
        ("find_unused_parameters", True, "did you mean train.ddp.find_unused_parameters?"),
        ("Max_Iters", 5, "did you mean train.max_iter?"),
    ],
)
def test_what_a_file_says_in_train(toy_config, key, value, message):
    cfg = toy_config()
    group, _, name = f"train.{key}".rpartition(".")
    (cfg.train if group == "train" else cfg.train[group[6:]])[name] = value
    with pytest.raises(ValueError) as error:
        LazyTrainer(cfg)
    assert message in str(error.value)
    assert "train." in str(error.value) and "object_type" not in str(error.value)


def test_train_that_is_no_group():
    with pytest.raises(ValueError, match="train is 5; expected keys"):
        check_config(DictConfig({"train": 5}))


def test_what_is_allowed_in_train(toy_config):
    cfg = toy_config("train.max_iter=${data.num_classes}")
    cfg.train.update(
        {"device": None, "init_checkpoint": None, "eval_period": "${train.max_iter}", "seed": -1}
    )
    cfg.train.checkpointer.update(max_to_keep=None, file_prefix="x")
    cfg.train.ddp.update(static_graph=True, bucket_cap_mb=10)
    own = "note name tags epochs batch_size lr wandb warmup_iters model num_gpus save_images"
    own += " mode loss size log eval metric output world_size"
    cfg.train.update({name: [1] for name in own.split()})
    check_config(cfg)
    cfg.train.update({"ddp": None, "amp": None, "checkpointer": None, "eval_period": -1})
    LazyTrainer(cfg)
    check_config(DictConfig({}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.head.foo", 3, "unknown key 'model.head.foo' in the config (GFLHead has no"),
        ("model.matcher.topkk", 3, "did you mean model.matcher.topk?"),
        ("lr_multiplier.warmup_lenght", 0.1, "did you mean lr_multiplier.warmup_length"),
        ("dataloader.train.total_batchsize", 2, "did you mean dataloader.train.total_batch_size"),
        ("dataloader.train.mapper.augmentations.0.max_sise", 2, "augmentations.0.max_size"),
        ("model.matcher._target_", "gfocal.modeling.ATSS", "model.matcher._target_ is 'gfocal.mod"),
        ("model.matcher._target_", "nowhere.ATSS", "which cannot be imported"),
        ("model.matcher._target_", "gfocal.__doc__", "expected a class or function"),
        ("model.matcher._target_", ".x", "which cannot be imported"),
        ("model.head.norm", "XX", "model.head.norm is 'XX'; expected what Detectron2's get_norm"),
        ("model.backbone.norm", "XX", "model.backbone.norm is 'XX'; expected what Detectron2's"),
    ],
)
def test_lazy_calls(key, value, message):
    cfg = model_zoo.get_config("quick_start/shapes_gflv2.py")
    check_config(cfg)
    node = cfg
    *path, last = key.split(".")
    for name in path:
        node = node[int(name) if name.isdigit() else name]
    node[last] = value
    with pytest.raises(ValueError) as error:
        check_config(cfg)
    assert message in str(error.value)
    if key.startswith("model."):
        with pytest.raises(ValueError) as error:
            check_model(cfg)
        assert message in str(error.value)
    else:
        check_model(cfg)


def takes_anything(first, /, *, norm="l2", **kwargs):
    return kwargs


def test_lazy_calls_that_cannot_be_looked_into():
    cfg = DictConfig(
        {
            "model": L(takes_anything)(norm="own", color="red", part="${nowhere}", later="???"),
            "dataloader": {
                "a": {"_target_": "builtins.int", "x": 3},
                "b": {"_target_": "${dataloader.c}", "x": 3},
                "c": {"_target_": L(takes_anything)(), "x": 3},
                "d": {
                    "_target_": "detectron2.data.DatasetMapper",
                    "cfg": "${yacs}",
                    "is_train": True,
                },
            },
            "export": {"_target_": "not.installed"},  # nothing that a training builds
        }
    )
    check_config(cfg)
    check_model(cfg)
    with pytest.raises(ValueError, match="the config has no 'model'"):
        check_model(DictConfig({}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.CHECKPOINT_PERIOD", 0, "is 0; expected an integer, at least 1"),
        ("SOLVER.MAX_ITER", 0, "is 0; expected an integer, at least 1"),
        ("SOLVER.EMA_DECAY", 1.5, "is 1.5; expected a number between 0 and 1, or 0"),
        ("TEST.BEST_MODE", "most", 'is \'most\'; expected "max" or "min"'),
        ("SEED", None, "is None; expected an integer"),
        ("MODEL.META_ARCHITECTURE", "GFLX", "is 'GFLX'; expected a registered one, e.g. GFL"),
        ("MODEL.BACKBONE.NAME", "nope", "is 'nope'; expected a registered one, e.g. build_"),
        ("MODEL.GFL.NORM", "XX", "is 'XX'; expected what Detectron2's get_norm knows"),
    ],
)
def test_yacs(key, value, message):
    cfg = get_cfg()
    check_config(cfg)
    add_gfocal_config(cfg)
    check_config(cfg)
    cfg.MODEL.MINE = CfgNode({"NORM": "NaiveGN"})  # another project's
    cfg.TEST.EVAL_PERIOD = -1  # never
    check_config(cfg)
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=f"{key} {message}".replace(".", r"\.")):
        check_config(cfg)
