import copy
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.data.detection_utils import read_image
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf
from PIL import Image

from gfocal import data, model_zoo
from gfocal.cli import demo
from gfocal.config import check_model
from gfocal.data.mapper import DetectionMapper
from gfocal.data.shapes import CLASSES
from gfocal.engine import LazyTrainer, Predictor, load_config
from gfocal.modeling.quality import NoQuality
from tests.helpers.tiny import TinyBackbone, make_gfl

YACS = """
MODEL:
  META_ARCHITECTURE: ToyDetector
  DEVICE: cpu
  RETINANET: {NUM_CLASSES: 2}
INPUT: {MIN_SIZE_TEST: 24, MAX_SIZE_TEST: 64, FORMAT: RGB}
DATASETS: {TEST: [toy_val]}
"""


@pytest.fixture
def trained(toy_config, tmp_path: Path) -> str:
    LazyTrainer(toy_config("train.max_iter=1")).train()
    return str(tmp_path / "output" / "model_final.pth")


def test_both_kinds_of_config_give_the_evaluation_loaders_answer(toy_config, trained, tmp_path):
    cfg = toy_config(f"train.init_checkpoint={trained}")
    path = tmp_path / "toy.yaml"
    path.write_text(YACS)
    predictors = [Predictor(cfg), Predictor(load_config(path), trained)]
    for inputs in LazyTrainer.build_test_loader(cfg):
        image = read_image(inputs[0]["file_name"], format="BGR")
        for predictor in predictors:
            assert not predictor.model.training
            prepared = predictor.preprocess(image)
            assert prepared["image"].shape == (3, 24, 32)
            # The mapper keeps the image in uint8, in the same order of channels.
            assert torch.equal(prepared["image"], inputs[0]["image"].float())
            instances = predictor(image)["instances"]
            expected = predictor.model(inputs)[0]["instances"]
            assert instances.image_size == (48, 64)
            assert torch.equal(instances.pred_boxes.tensor, expected.pred_boxes.tensor)
            assert not instances.scores.requires_grad
            assert predictor.metadata.thing_classes == ["square", "wide"]
    cfg.dataloader.train.mapper.image_format = "BGR"  # followed by the test mapper
    swapped = Predictor(cfg).preprocess(image)["image"]
    assert torch.equal(swapped, prepared["image"].flip(0))


def test_config_without_its_dataset_still_predicts(toy_config, trained):
    cfg = toy_config("dataloader.test.dataset.names=not_there")
    assert Predictor(cfg, trained).metadata is None
    node = {"_target_": "gfocal.data.coco.register_coco_json", "name": "x", "image_root": "/"}
    cfg.dataloader.test.dataset.names = {**node, "json_file": "/nowhere.json"}
    assert Predictor(cfg, trained).metadata is None
    cfg.dataloader.test.dataset.names = {"_target_": f"{__name__}.not_permitted"}
    assert Predictor(cfg, trained).metadata is None


def not_permitted():
    raise PermissionError("Permission denied: '/x.json'")


def test_weights_are_needed_and_checked(toy_config, trained, tmp_path):
    with pytest.raises(ValueError, match="no weights"):
        Predictor(toy_config())
    with pytest.raises(FileNotFoundError, match=r"no weight file '/nowhere/w\.pth'"):
        Predictor(toy_config(), "/nowhere/w.pth")
    state = torch.load(trained)["model"]
    state["linear.wieght"] = state.pop("linear.weight")
    torch.save({"model": state}, tmp_path / "renamed.pth")
    with pytest.raises(ValueError, match=r"linear.weight: missing(?s:.*)linear.wieght: not in the"):
        Predictor(toy_config(), str(tmp_path / "renamed.pth"))
    state["linear.weight"] = state.pop("linear.wieght")
    state["anchor_generator.cell_anchors.0"] = torch.zeros(1, 4)  # Detectron2 0.5 saves them
    torch.save({"model": state}, tmp_path / "more.pth")
    Predictor(toy_config(), str(tmp_path / "more.pth"))
    state["quality.weight"] = torch.zeros(1)
    torch.save({"model": state}, tmp_path / "more.pth")
    with pytest.raises(ValueError, match=r"not this model's:\n  quality.weight: not in the model$"):
        Predictor(toy_config(), str(tmp_path / "more.pth"))


def test_weights_of_gflv2_in_gflv1_and_back(tmp_path, monkeypatch):
    """And a Predictor leaves no dataset behind, not even a generated one."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    v2 = load_config(model_zoo.get_config_file("quick_start/shapes_gflv2.py"), ["train.device=cpu"])
    v1 = copy.deepcopy(v2)
    v1.model.head.quality_predictor = LazyCall(NoQuality)()
    for cfg, name in ((v1, "v1.pth"), (v2, "v2.pth")):
        torch.save({"model": instantiate(cfg.model).state_dict()}, name)
    with pytest.raises(ValueError, match=r"quality_predictor\S+: not in the model"):
        Predictor(v1, "v2.pth")
    with pytest.raises(ValueError, match=r"quality_predictor\S+: missing in the file"):
        Predictor(v2, "v1.pth")
    predictor = Predictor(v2, "v2.pth")
    assert predictor.metadata.thing_classes == list(CLASSES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v1.pth", "v2.pth"]


def test_config_needs_test_augmentations(toy_config, trained):
    cfg = toy_config()
    del cfg.dataloader.test.mapper["augmentations"]
    with pytest.raises(ValueError, match=r"dataloader\.test\.mapper\.augmentations"):
        Predictor(cfg, trained)
    cfg = toy_config("dataloader.test.mapper.image_format=L")
    with pytest.raises(ValueError, match="'L'"):
        Predictor(cfg, trained)


@pytest.mark.parametrize("kind", ["lazy", "yacs"])
@pytest.mark.parametrize(("shape", "resized"), [((1, 5000), (1, 64)), ((1, 1), (24, 24))])
def test_an_image_is_not_resized_to_nothing(toy_config, trained, tmp_path, kind, shape, resized):
    (tmp_path / "toy.yaml").write_text(YACS)
    cfg = toy_config() if kind == "lazy" else load_config(tmp_path / "toy.yaml")
    predictor = Predictor(cfg, trained)
    image = np.full((*shape, 3), 200, np.uint8)
    assert predictor.preprocess(image)["image"].shape == (3, *resized)
    assert predictor(image)["instances"].image_size == shape


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, "float32"),
        (Image.new("RGB", (4, 4)), TypeError, "Image"),
        (np.zeros((4, 4), np.uint8), ValueError, r"\(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"\(0, 4, 3\)"),
    ],
)
def test_what_is_no_image_is_refused(toy_config, trained, image, error, message):
    with pytest.raises(error, match=message):
        Predictor(toy_config(), trained)(image)


@pytest.mark.parametrize(("image_format", "channels"), [("L", 1), ("RGBA", 4), (None, 5)])
def test_images_of_other_channels_are_trained_on_and_looked_at(
    tmp_path, monkeypatch, image_format, channels
):
    """From files to losses, the training's pictures, detections and the demo's pictures."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(2):
        pixels = np.random.randint(0, 256, (64, 96, channels), dtype=np.uint8)
        if image_format is None:
            np.save(folder / f"{index}.npy", pixels)
        else:
            Image.fromarray(pixels.squeeze()).save(folder / f"{index}.png")
    files = sorted(str(x) for x in folder.iterdir())
    resize = LazyCall(T.ResizeShortestEdge)(short_edge_length=32, max_size=64)
    loader = {"mapper": LazyCall(DetectionMapper)(is_train=True, augmentations=[resize])}
    loader["mapper"].image_format = "${model.input_format}"
    cfg = OmegaConf.create(
        {
            "model": LazyCall(small_gfl)(channels=channels, input_format=image_format),
            "dataloader": {"train": loader, "test": loader},
            "train": {"device": "cpu"},
        },
        flags={"allow_objects": True},
    )
    check_model(cfg)
    mapper = instantiate(cfg.dataloader.train.mapper)
    box = {"bbox": [8, 8, 60, 56], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    batch = [mapper({"file_name": x, "image_id": 1, "annotations": [box]}) for x in files]
    model = instantiate(cfg.model)
    model.vis_period = 1
    with EventStorage() as storage:
        sum(model(batch).values()).backward()
        assert storage._vis_data[0][1].shape[0] == 3
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")

    predictor = Predictor(cfg, str(tmp_path / "weights.pth"))
    image = data.read_image(files[0], predictor.read_format)
    assert image.shape == (64, 96, channels)
    with torch.no_grad():
        (expected,) = model.eval()([{**batch[0], "height": 64, "width": 96}])
    found = predictor(image)["instances"]
    torch.testing.assert_close(found.scores, expected["instances"].scores)
    with pytest.raises(ValueError, match=rf"\(H, W, {channels}\) in the model's format, got shape"):
        predictor(np.zeros((8, 8, 2), np.uint8))

    monkeypatch.setattr(demo, "load_config", lambda *args: cfg)
    arguments = ["--config-file", "c.py", "--weights", str(tmp_path / "weights.pth"), "--input"]
    arguments += [*files, "--output", str(tmp_path / "pictures"), "--confidence", "0"]
    assert demo.main(arguments) == 0
    assert len(list((tmp_path / "pictures").iterdir())) == 2


class AnyChannels(TinyBackbone):
    def __init__(self, channels):
        super().__init__()
        self.conv = torch.nn.ModuleDict(
            {"p3": torch.nn.Conv2d(channels, 8, 1), "p4": torch.nn.Conv2d(channels, 8, 1)}
        )


def small_gfl(channels, input_format):
    return make_gfl(
        backbone=AnyChannels(channels),
        input_format=input_format,
        pixel_mean=[100.0] * channels,
        pixel_std=[50.0] * channels,
        test_score_thresh=0.0,
    )
