import pytest
from detectron2.config import instantiate
from omegaconf import DictConfig

from gfocal.config import apply_overrides


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("train.max_itr=5", "did you mean train.max_iter"),
        ("max_iter=5", "did you mean train.max_iter"),
        ("trian.max_iter=5", "did you mean train.max_iter"),
        ("optimizer.momentun=0.5", "did you mean optimizer.momentum"),
        ("model.gian=2", "did you mean model.gain"),  # an argument that the config leaves out
        ("model.new.part=2", "unknown key 'model.new.part'"),
        ("train.amp.enable=1", "did you mean train.amp.enabled"),
        ("zzz=1", "unknown key 'zzz'"),
        ("TRAIN.MAX_ITER=4", "did you mean train.max_iter"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(toy_config, override, suggestion):
    with pytest.raises(ValueError, match="unknown key") as error:
        toy_config(override)
    assert suggestion in str(error.value)
    assert override in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.max_iter.x=5", "train.max_iter is the value 6 and has no keys"),
        ("+train.max_iter.x=5", "train.max_iter is the value 6 and has no keys"),
        ("dataloader.train.mapper.augmentations.4.max_size=1", "is a list of 1 elements"),
        ("train.max_iter", "cannot be read as key=value"),
        ("train.output_dir", "cannot be read as key=value"),
        ("train.max_iter=[1", "cannot be read as key=value (no viable alternative at input '[1'"),
        ("+train.note=José", "cannot be read as key=value (token recognition error"),
        ("+train.note=José", "quote a value with special characters"),
        ("train.output_dir=${x", "train.output_dir=${x"),
        ("~train.max_iter", "deletions and sweeps are not supported"),
        ("train.max_iter=1,2", "deletions and sweeps are not supported"),
    ],
)
def test_unreadable_overrides_are_refused(toy_config, override, message):
    with pytest.raises(ValueError, match="override") as error:
        toy_config(override)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "end"),
    [
        (["train.output_dir=${x"], "; expected a string"),
        (["train.device=${x"], "; expected a string, or null"),
        (["+train.own=${nowhere}", "+train.own.x=1"], "Interpolation key 'nowhere' not found"),
    ],
)
def test_a_message_is_one_line(toy_config, overrides, end):
    with pytest.raises(ValueError, match="^override ") as error:
        toy_config(*overrides)
    message = str(error.value)
    assert message.endswith(end)
    assert "\n" not in message and "full_key" not in message and "object_type" not in message


def test_overrides_reach_every_kind_of_key(toy_config):
    cfg = toy_config(
        "train.max_iter=9",
        "train.output_dir='/a, b=c'",
        "train.amp={enabled:true}",
        "dataloader.train.mapper.augmentations.0.max_size=77",
        "dataloader.train.mapper.augmentations.0.short_edge_length=33",
        "model.gain=2.5",
        "optimizer.params.bias_lr_factor=2.0",
        "+train.note=hello",
        "data.num_classes=3",
        "model.input_format=${dataloader.train.mapper.image_format}",
    )
    assert cfg.train.max_iter == 9
    assert cfg.train.output_dir == "/a, b=c"
    assert cfg.train.amp.enabled is True
    (augmentation,) = instantiate(cfg.dataloader.train.mapper.augmentations)
    assert (augmentation.max_size, augmentation.short_edge_length) == (77, (33, 33))
    model = instantiate(cfg.model)
    assert (model.gain, model.num_classes, model.input_format) == (2.5, 3, "RGB")
    assert cfg.optimizer.params.bias_lr_factor == 2.0
    assert cfg.train.note == "hello"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.max_iter=abc", "train.max_iter is 6; expected a number"),
        ("train.max_iter=3.5", "train.max_iter is 6; expected an integer"),
        ("train.max_iter=1e400", "expected an integer"),  # infinite
        ("train.max_iter=true", "expected a number"),
        ("train.max_iter=[1]", "expected a number"),
        ("train.max_iter={a:1}", "expected a number"),
        ("+train.max_iter=abc", "expected a number"),
        ("model.num_classes=3.5", "model.num_classes is 2; expected an integer"),
        ("model.num_classes=[3]", "expected a number"),
        ("optimizer.lr=fast", "optimizer.lr is 0.1; expected a number"),
        ("train.amp.enabled=1", "train.amp.enabled is False; expected true or false"),
        ("train.amp.enabled=maybe", "expected true or false"),
        ("train.amp=true", "expected keys: train.amp.KEY=... or train.amp={KEY:...}"),
        ("train.amp={enabled:abc}", "train.amp.enabled is False; expected true or false"),
        ("train.amp={enable:true}", "did you mean train.amp.enabled?"),
        ("train={output_dir:5}", "expected a string"),
        ("lr_multiplier.scheduler.milestones=abc", "is [4, 6]; expected a list"),
        ("dataloader.train.mapper.augmentations=5", "expected a list"),
        ("dataloader.train.mapper.augmentations.0.max_size=abc", "expected a number"),
    ],
)
def test_a_value_of_another_kind_is_refused(toy_config, override, expected):
    with pytest.raises(ValueError, match="override|unknown key") as error:
        toy_config(override)
    assert expected in str(error.value)
    assert override in str(error.value)


def test_numbers_become_what_stood_there(toy_config):
    cfg = toy_config(
        "train.max_iter=1e4",
        "optimizer.lr=1",
        "train={checkpointer:{period:2e1}}",
        "dataloader.train.mapper.augmentations.0.short_edge_length=[24,48]",  # has no annotation
        "dataloader.test.dataset.num_images=2",
        "+model.gain=2",
        "model.gain=0.5",  # annotated as float
        "optimizer.weight_decay=0",
        "data.num_classes=null",
    )
    found = (cfg.train.max_iter, cfg.optimizer.lr, cfg.train.checkpointer.period, cfg.model.gain)
    assert found == (10000, 1.0, 20, 0.5)
    assert [type(x) for x in found] == [int, float, int, float]
    assert cfg.train.checkpointer.max_to_keep == 10
    assert cfg.dataloader.train.mapper.augmentations[0].short_edge_length == [24, 48]
    assert cfg.data.num_classes is None
    assert (
        apply_overrides(cfg, ["data.num_classes=abc"]).data.num_classes == "abc"
    )  # null gives way


def test_a_lazy_call_is_replaced_by_anything(toy_config):
    cfg = toy_config(
        "lr_multiplier.scheduler={_target_:fvcore.common.param_scheduler.ConstantParamScheduler,"
        "value:0.5}",
        "data.num_classes={_target_:builtins.int,x:3}",
        "dataloader.evaluator=null",
        "dataloader.test.dataset=[a,b]",
        "dataloader.test.mapper.augmentations={_target_:builtins.list}",
        "model=3",
    )
    assert instantiate(cfg.lr_multiplier.scheduler)(0.0) == 0.5  # and gets no milestones
    assert cfg.data.num_classes == {"_target_": "builtins.int", "x": 3}
    assert cfg.dataloader.evaluator is None
    assert cfg.dataloader.test.dataset == ["a", "b"]
    assert cfg.dataloader.test.mapper.augmentations == {"_target_": "builtins.list"}
    assert cfg.model == 3


@pytest.mark.parametrize(
    "value",
    [
        "/a/José/x.json",
        "x(1).json",
        "a[1].json",
        "a # b & c; d=e, f",
        "2017",
        "1e3",
        "true",
        "",
        "'",
    ],
)
def test_where_a_string_stands_the_text_is_taken_as_it_is(toy_config, value):
    assert toy_config(f"data.folder={value}").data.folder == value
    for quote in "'\"":
        assert toy_config(f"data.folder={quote}{value}{quote}").data.folder == value


def test_what_else_can_replace_a_string(toy_config, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert toy_config("data.folder=~/x.json").data.folder == "/home/me/x.json"
    assert toy_config("data.folder='~/x.json'").data.folder == "~/x.json"
    assert toy_config("data.folder=null").data.folder is None
    assert toy_config("data.folder=[a,2]").data.folder == ["a", 2]
    assert toy_config("data.folder={a:2}").data.folder == {"a": 2}
    assert toy_config("data.folder=${train.max_iter}").data.folder == 6
    # An interpolation to a number is no string.
    assert toy_config("model.num_classes=3").model.num_classes == 3


def test_a_broken_value_can_be_replaced(toy_config):
    cfg = toy_config("train.max_iter=${nowhere}")
    cfg.data.folder = "${nowhere}"
    apply_overrides(cfg, ["train.max_iter=7", "data.folder=x"])
    assert (cfg.train.max_iter, cfg.data.folder) == (7, "x")
    cfg.dataloader.train.mapper.augmentations[0] = "${nowhere}"
    apply_overrides(cfg, ["dataloader.train.mapper.augmentations.0=x"])
    assert cfg.dataloader.train.mapper.augmentations == ["x"]


def test_a_callable_that_takes_anything_accepts_any_argument():
    cfg = DictConfig({"part": {"_target_": "tests.config.test_overrides.takes_anything"}})
    assert apply_overrides(cfg, ["part.color=red"]).part.color == "red"


def takes_anything(**kwargs):
    return kwargs
