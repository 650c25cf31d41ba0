import copy
import io
import logging

import pytest
import torch
import yaml
from detectron2.config import LazyCall, instantiate
from detectron2.modeling import build_model
from omegaconf import OmegaConf

from gfocal import _version, model_zoo
from gfocal.data.coco_json import coco_num_classes
from gfocal.modeling.quality import centerness
from gfocal.weights.config_data import config_of
from gfocal.weights.description import (
    KEY,
    Description,
    describe,
    description_of,
    disagreement,
    find_config,
    metrics_of,
    read_description,
)

NAMES = ["cat", "dog", "bird"]
SMALL = "quick_start/shapes_gflv2.py"


def written(folder, description=None, model=None, **changes) -> str:
    """A weight file with a description; ``changes`` are of the description."""
    data = (description or describe(small(), class_names=NAMES)).plain()
    path = folder / "w.pth"
    torch.save({"model": model or {"x": torch.ones(1)}, KEY: {**data, **changes}}, path)
    return str(path)


def small():
    cfg = model_zoo.get_config(SMALL)
    cfg.train.device = "cuda:7"  # of the machine where it was trained
    return cfg


def stored(description: Description) -> Description:
    """A description after it was in a file, which is read without running code."""
    file = io.BytesIO()
    torch.save({KEY: description.plain()}, file)
    file.seek(0)
    return description_of(torch.load(file, weights_only=True), "w.pth")


@pytest.mark.parametrize(
    "name",
    [
        SMALL,
        "COCO-Detection/gflv2_R2_101_dcn_FPN_ms_2x.py",
        "COCO-Detection/gfl_X_101_32x4d_FPN_ms_2x.py",
        "ablations/table1b/retinanet_R_50_FPN_1x_qfl.py",
        "COCO-Detection/gflv2_R_50_FPN_1x.yaml",
    ],
)
def test_the_model_of_a_config_comes_back(name):
    cfg = model_zoo.get_config(name)
    back = stored(describe(cfg))
    again = config_of(back.kind, back.config, "w.pth")
    if name.endswith(".yaml"):
        cfg.MODEL.DEVICE = again.MODEL.DEVICE = "cpu"
        again.OUTPUT_DIR = cfg.OUTPUT_DIR
        assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())
        assert repr(build_model(again)) == repr(build_model(cfg))
        assert (back.pixel_mean, back.input_format) == (cfg.MODEL.PIXEL_MEAN, "RGB")
    else:
        assert repr(instantiate(again.model)) == repr(instantiate(cfg.model))
        assert back.pixel_std == list(cfg.model.pixel_std)
        assert "train" not in again.dataloader and "optimizer" not in again
        assert back.config["optimizer"]["lr"] == cfg.optimizer.lr  # it is there to be read
    assert back.versions["gfocal"] == _version.__version__
    assert len(str(back.config)) < 50_000


def test_values_that_other_files_or_other_sections_decide():
    cfg = small()
    cfg.data = {"classes": LazyCall(coco_num_classes)(json_file="/not/there.json")}
    cfg.model.num_classes = "${data.classes}"
    cfg.model.head.prior_prob = "${dataloader.train.prior}"
    cfg.model.matcher._target_ = "gfocal.ATSSMatcher"  # a public name, as saved configs have
    cfg.dataloader.train.prior = 0.02
    cfg.model.pixel_mean = [1.0, 2.0, "${oc.decode:'3.0'}"]
    before = copy.deepcopy(cfg)
    back = config_of("lazy", stored(describe(cfg, num_classes=3)).config, "w.pth")
    assert cfg == before
    assert back.model.num_classes == back.model.head.num_classes == back.data.classes == 3
    assert back.model.head.prior_prob == 0.02
    assert list(back.model.pixel_mean) == [1.0, 2.0, 3.0]
    back.data.classes = 4  # other references stay
    assert back.model.head.num_classes == 4


def test_functions_as_arguments():
    cfg = small()
    cfg.model.draw_training = "gfocal.inspect.draw_training_image"  # GFL takes its name
    cfg.model.criterion.box_weight = centerness
    back = config_of("lazy", stored(describe(cfg)).config, "w.pth")
    assert back.model.criterion.box_weight is centerness


def test_a_config_that_is_no_data_is_left_out(caplog):
    cfg = small()
    with caplog.at_level(logging.WARNING):
        OmegaConf.update(cfg, "model.head.extra", lambda: 0, force_add=True)
        description = describe(cfg, class_names=NAMES)
    assert "model.head.extra" in caplog.text and "without their config" in caplog.text
    assert (description.kind, description.config) == ("", None)
    assert stored(description).class_names == NAMES


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"model": {"_target_": "os.system", "command": "true"}}, r"w\.pth: config\.model names"),
        ({"model": {"f": {"_callable_": "os.system"}}}, r"config\.model\.f names 'os\.system'"),
        ({"model": {"a": ["${oc.env:HOME}"]}}, r"config\.model\.a\[0\] is '\$\{oc\.env:HOME\}'"),
        ({"model": {"a": "${b.${oc.env:HOME}}"}}, "expected no expression"),
        ({"model": {"a": "x${b}"}}, "expected no expression"),
        ({"dataloader": {"test": {"_target_": "torch.load", "f": "x"}}}, r"dataloader\.test names"),
        ({"train": {"a": {"_target_": ["os.system"]}}}, "names"),
        ({"model": {"_target_": "gfocal.detectors.gfl.GFL", "cfg": {}}}, "cfg is an argument"),
        ({"model": {"draw_training": "os.system"}}, "draw_training names 'os.system'"),
        ({"model": {"a": torch.ones(1)}}, r"model\.a is a Tensor"),
    ],
)
def test_a_config_that_would_run_code(changes, text, tmp_path):
    description = describe(small())
    path = written(tmp_path, config={**description.config, **changes})
    with pytest.raises(ValueError, match=text):
        find_config(path)


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.system ['true']", "_BASE_: /etc/x.yaml", "[1]", "", 7, "a: ["],
)
def test_yacs_text_that_is_no_config(text, tmp_path):
    path = written(tmp_path, kind="yacs", config=text)
    with pytest.raises(ValueError, match=r"w\.pth: its config"):
        find_config(path)


def test_yacs_keys_of_another_version(tmp_path, caplog):
    cfg = model_zoo.get_config("COCO-Detection/gfl_R_50_FPN_1x.yaml")
    text = describe(cfg).config + "\nNEW: {KEY: 1}\n"
    back, _ = find_config(written(tmp_path, kind="yacs", config=text))
    assert back.MODEL.META_ARCHITECTURE == "GFL" and "NEW" not in back
    assert "left out: NEW" in caplog.text
    assert back.MODEL.WEIGHTS.endswith("w.pth")
    with pytest.raises(ValueError, match="does not fit"):
        find_config(written(tmp_path, kind="yacs", config="MODEL: {GFL: 7}"))


@pytest.mark.parametrize(
    "changes",
    [{"format": "1"}, {"class_names": "cat"}, {"metrics": [1]}, {"iteration": None}, {"kind": 1}],
)
def test_a_damaged_description(changes, tmp_path):
    with pytest.raises(ValueError, match=r"w\.pth: .*description"):
        read_description(written(tmp_path, **changes))


def test_proposals_of_a_yacs_config_would_be_unpickled(tmp_path):
    cfg = model_zoo.get_config("COCO-Detection/gfl_R_50_FPN_1x.yaml")
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.LOAD_PROPOSALS = "RetinaNet", True
    with pytest.raises(ValueError, match="LOAD_PROPOSALS, which could run code"):
        find_config(written(tmp_path, kind="yacs", config=cfg.dump()))


def test_where_results_go_is_not_the_choice_of_the_file(tmp_path):
    cfg, _ = find_config(written(tmp_path))
    assert cfg.train.output_dir == "./output/evaluation" and cfg.train.device is None
    assert cfg.dataloader.evaluator.output_dir == "./output/evaluation/inference"
    cfg.train.output_dir = "elsewhere"  # an override
    assert cfg.dataloader.evaluator.output_dir == "elsewhere/inference"
    cfg, _ = find_config(written(tmp_path), overrides=[f"train.output_dir={tmp_path}"])
    assert cfg.train.output_dir == str(tmp_path)
    text = describe(model_zoo.get_config("COCO-Detection/gfl_R_50_FPN_1x.yaml")).config
    cfg, _ = find_config(written(tmp_path, kind="yacs", config=text))
    assert cfg.OUTPUT_DIR == "./output/evaluation"


def test_a_config_without_an_end(tmp_path):
    tree: dict = {"model": {}}
    tree["model"]["model"] = tree
    with pytest.raises(ValueError, match=r"w\.pth: its config cannot be read"):
        config_of("lazy", tree, "w.pth")


def test_a_later_format_and_none(tmp_path, caplog):
    path = written(tmp_path, format=99, versions={"gfocal": "7.0"})
    assert read_description(path) is None
    assert "written by gfocal 7.0" in caplog.text
    with pytest.raises(ValueError, match="carries no config"):
        find_config(path)
    torch.save({"x": torch.ones(1)}, path)
    assert read_description(path) is None
    assert read_description("model.pkl") is None  # not opened: it could run code


def test_what_a_user_gives(tmp_path):
    path = written(tmp_path)
    cfg, description = find_config(path, overrides=["model.test_score_thresh=0.3"])
    assert cfg.model.test_score_thresh == 0.3 and cfg.train.init_checkpoint == path
    assert list(description.class_names) == NAMES
    given = small()
    cfg, _ = find_config(given, path, ["model.num_classes=9"])
    assert cfg.model.num_classes == 9 and given.model.num_classes == 6
    assert cfg.train.init_checkpoint == path and given.train.init_checkpoint != path
    cfg, _ = find_config(SMALL, path)  # a name of the zoo
    assert cfg.model.num_classes == 6
    own = tmp_path / "own.py"
    own.write_text("model = dict(num_classes=5)\ntrain = dict(init_checkpoint='')\n")
    assert find_config(own, path)[0].model.num_classes == 5
    with pytest.raises(FileNotFoundError, match=r"no weight file .*none\.pth"):
        find_config(tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"w\.pth' as a config; expected a \.py or \.yaml"):
        find_config(path, path)
    for nothing in ((None,), (None, "")):
        with pytest.raises(ValueError, match="neither a config nor weights"):
            find_config(*nothing)
    for other in (3, {"model": {}}):
        with pytest.raises(TypeError, match="as a config; expected a config, or a path"):
            find_config(other, path)


def test_thresholds_by_names_that_the_weights_alone_know(tmp_path):
    path = written(tmp_path, describe(small(), class_names=[*NAMES, "ant", "bee", "cow"]))
    cfg, _ = find_config(path, overrides=["model.test_score_thresh={bird:0.5,default:0.2}"])
    assert instantiate(cfg.model).postprocess.thresholds(6) == (0.2, 0.2, 0.5, 0.2, 0.2, 0.2)
    cfg, _ = find_config(path, overrides=["model.test_score_thresh={brid:0.5}"])
    with pytest.raises(ValueError, match="'brid', which is unknown; did you mean bird"):
        instantiate(cfg.model)
    yacs = model_zoo.get_config("COCO-Detection/gflv2_R_50_FPN_1x.yaml")
    yacs.DATASETS.TEST = yacs.DATASETS.TRAIN = ("of_another_machine",)
    path = written(tmp_path, describe(yacs, class_names=NAMES))
    key = "MODEL.GFL.SCORE_THRESH_PER_CLASS"
    cfg, _ = find_config(path, overrides=[key, "[['bird', 0.5], [0, 0.3]]"])
    assert cfg.MODEL.GFL.SCORE_THRESH_PER_CLASS == [[2, 0.5], [0, 0.3]]
    with pytest.raises(ValueError, match="'brid', which is unknown; did you mean bird"):
        find_config(path, overrides=[key, "[['brid', 0.5]]"])


def test_disagreement():
    description = Description(class_names=NAMES)
    assert disagreement(description, 3, NAMES) == disagreement(description, None, ()) == ""
    assert disagreement(Description(), 3, NAMES) == ""
    assert disagreement(description, 2, ()) == "2 classes, and the weights 3: cat, dog, bird"
    assert "'horse' ('dog')" in disagreement(description, 3, ["cat", "horse", "bird"])


def test_metrics_of():
    results = {"bbox": {"AP": 1, "AP-cat": 0.5}, "validation": {"total_loss": 2}}
    expected = {"bbox/AP": 1.0, "bbox/AP-cat": 0.5, "validation/total_loss": 2.0}
    assert metrics_of(results) == expected
    assert metrics_of({"a": results})["a/bbox/AP"] == 1.0
