import copy
from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.data import MetadataCatalog
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
from gfocal.data.transforms import CenterPad
from gfocal.engine import LazyTrainer, Predictor, load_config
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.quality import NoQuality
from gfocal.modeling.representations import DiracDistance
from gfocal.modeling.terms import GIoULoss, QualityFocalLoss
from tests.engine.conftest import TOY_CONFIG
from tests.helpers.tiny import TinyBackbone, make_gfl, make_head

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


def test_config_without_its_dataset_still_predicts(toy_config, trained, tmp_path, caplog):
    bare = str(tmp_path / "bare.pth")
    torch.save({"model": torch.load(trained)["model"]}, bare)
    cfg = toy_config("dataloader.test.dataset.names=not_there")
    node = {"_target_": "gfocal.data.coco.register_coco_json", "name": "x", "image_root": "/"}
    for names in (
        "not_there",
        {**node, "json_file": "/nowhere.json"},
        {"_target_": f"{__name__}.not_permitted"},
    ):
        cfg.dataloader.test.dataset.names = names
        caplog.clear()
        predictor = Predictor(cfg, trained)  # these weights know their classes
        assert predictor.class_names == predictor.metadata.thing_classes == ["square", "wide"]
        assert "unknown" not in caplog.text
        predictor = Predictor(cfg, bare)
        assert predictor.class_names is None and predictor.metadata is None
        assert ("unknown" in caplog.text) == (names != "not_there")


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


def test_sizes_are_told_without_pixels(toy_config, trained, monkeypatch):
    predictor = Predictor(toy_config(), trained)
    both = T.AugmentationList([*predictor.augmentations.augs, T.NoOpTransform()])
    monkeypatch.setattr(predictor, "augmentations", both)
    for size in ((480, 640), (640, 480), (100, 1000), (37, 91), (1, 5000)):
        image = predictor.preprocess(np.zeros((*size, 3), np.uint8))["image"]
        assert predictor.resized(size) == predictor.size_in_batch(size) == image.shape[1:]
    monkeypatch.setattr(predictor.model, "backbone", TinyBackbone(), raising=False)
    assert predictor.resized((48, 65)) == (24, 33) and predictor.size_in_batch((48, 65)) == (32, 48)
    monkeypatch.setattr(predictor, "augmentations", T.AugmentationList([T.RandomFlip(1.0)]))
    assert predictor.resized((48, 65)) is predictor.size_in_batch((48, 65)) is None


@pytest.mark.parametrize("kind", ["lazy", "yacs"])
def test_padding_is_that_of_the_evaluation(toy_config, trained, tmp_path, kind):
    """The same input for the model, with the same keys, and its size told without pixels."""
    mean = [100.5, 90.0, 80.0]
    if kind == "lazy":
        cfg = toy_config()
        augmentations = [
            LazyCall(T.ResizeShortestEdge)(short_edge_length=24, max_size=64),
            LazyCall(CenterPad)(mean=mean, multiple=31, extra=1),
        ]
        cfg.dataloader.test.mapper = LazyCall(DetectionMapper)(
            is_train=False, augmentations=augmentations, image_format="RGB"
        )
        (inputs,) = next(iter(LazyTrainer.build_test_loader(cfg)))
        size, border, content = (32, 64), (4, 16), (24, 32)
    else:
        more = "{AUGMENTATIONS: cornernet, FORMAT: RGB}\n"
        path = tmp_path / "toy.yaml"
        path.write_text(YACS.replace("{MIN_SIZE_TEST: 24, MAX_SIZE_TEST: 64, FORMAT: RGB}\n", more))
        cfg = load_config(path, [f"MODEL.PIXEL_MEAN={mean}"])
        (inputs,) = next(iter(LazyTrainer.build_test_loader(toy_config())))
        inputs = DetectionMapper(cfg, False)(
            {x: inputs[x] for x in ("file_name", "height", "width")}
        )
        size, border, content = (127, 127), (39, 31), (48, 64)
    predictor = Predictor(cfg, trained)
    found = predictor.preprocess(read_image(inputs["file_name"], format="BGR"))
    assert found["image"].shape == (3, *size)
    assert torch.equal(found["image"], inputs["image"].float())
    assert found["image"][:, 0, 0].tolist() == mean
    for key, value in {"border": border, "content_size": content}.items():
        assert found[key] == inputs[key] == value
    assert (found["height"], found["width"]) == (48, 64)
    assert predictor.size_in_batch((48, 64)) == predictor.resized((48, 64)) == size


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, "float32"),
        (torch.zeros(4, 4, 3), TypeError, "Tensor"),
        (Image.new("F", (4, 4)), ValueError, "floating-point"),
        (7, TypeError, "got int"),
        (np.zeros((4, 4), np.uint8), ValueError, r"\(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"\(0, 4, 3\)"),
    ],
)
def test_what_is_no_image_is_refused(toy_config, trained, image, error, message):
    with pytest.raises(error, match=message):
        Predictor(toy_config(), trained)(image)


def test_lists_of_anything(toy_config, trained, tmp_path):
    predictor = Predictor(toy_config(), trained)
    arrays = [np.random.randint(0, 255, (40 + 8 * (i % 2), 64, 3), np.uint8) for i in range(5)]
    paths = []
    for index, array in enumerate(arrays):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(array[:, :, ::-1]).save(paths[-1])
    pictures = [Image.open(path) for path in paths]
    alone = [predictor(array)["instances"] for array in arrays]
    seen = []
    predictor.model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    for images in (arrays, tuple(paths), [str(path) for path in paths], pictures):
        del seen[:]
        found = [x["instances"] for x in predictor(images, batch_size=2)]
        assert sorted(seen) == [1, 2, 2]  # sizes are not mixed
        for instances, expected in zip(found, alone, strict=True):
            assert instances.image_size == expected.image_size
            assert torch.allclose(instances.pred_boxes.tensor, expected.pred_boxes.tensor)
            assert not instances.scores.requires_grad
        assert torch.equal(predictor(images[0])["instances"].scores, alone[0].scores)
    assert predictor([]) == []
    predictor.model.train()  # as a user's own code may leave it
    assert predictor(arrays[:1])[0]["instances"] and not predictor.model.training
    with pytest.raises(TypeError, match="image 1: expected a uint8 array"):
        predictor([arrays[0], 3])
    with pytest.raises(FileNotFoundError, match="no image file .*nothing.png"):
        predictor([tmp_path / "nothing.png"])
    with pytest.raises(ValueError, match="batch_size is 0"):
        predictor(arrays, batch_size=0)


def test_weights_alone(toy_config, trained, tmp_path, caplog):
    cfg = toy_config()
    image = np.random.randint(0, 255, (48, 64, 3), np.uint8)
    expected = Predictor(cfg, trained)(image)["instances"]
    with pytest.raises(ValueError, match="names 'tests.helpers.toy.*--trust tests"):
        Predictor(trained)
    predictor = Predictor(trained, trusted_packages=["tests"])
    assert predictor.class_names == ["square", "wide"]
    assert torch.equal(predictor(image)["instances"].scores, expected.scores)
    predictor = Predictor(Path(trained), trusted_packages=["tests"], overrides=["model.gain=2.0"])
    assert predictor.model.gain == 2.0
    for path in (tmp_path / "output/config.yaml", TOY_CONFIG):  # a config's path beside weights
        if Path(path).exists():
            assert Predictor(path, trained).class_names == ["square", "wide"]
    MetadataCatalog.get("toy_other").set(thing_classes=["square", "round"])
    caplog.clear()
    cfg = toy_config("dataloader.test.dataset.names=toy_other")
    assert Predictor(cfg, trained).class_names == ["square", "round"]  # the config wins
    assert "the config has other class names than the weights (in brackets): 'round' ('wide')" in (
        caplog.text
    )
    data = torch.load(trained)
    assert data["gfocal"]["iteration"] == 0 and data["gfocal"]["input_format"] == "RGB"
    assert data["gfocal"]["metrics"]["bbox/AP"] == 50.0


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

    monkeypatch.setattr(demo, "Predictor", lambda *args, **options: predictor)
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


def test_what_a_detector_without_sides_cannot_give(tmp_path):
    """A toy detector has no post-processing of ours."""
    cfg = load_config(str(Path(__file__).parents[1] / "helpers/toy_config.py"))
    model = instantiate(cfg.model)
    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    with pytest.raises(
        TypeError, match="a ToyDetector has no distributions; detectors with an NMSPost"
    ):
        Predictor(cfg, tmp_path / "w.pth", distributions=True)
    with pytest.raises(TypeError, match="a ToyDetector has no calibration"):
        Predictor(cfg, tmp_path / "w.pth", calibrated=True)


def test_distributions(tmp_path):
    cfg = load_config(str(Path(__file__).parents[1] / "helpers/toy_config.py"))
    cfg = OmegaConf.create(
        {**cfg, "model": LazyCall(make_gfl)(test_score_thresh=0.0)}, flags={"allow_objects": True}
    )
    torch.save({"model": instantiate(cfg.model).state_dict()}, tmp_path / "w.pth")
    image = np.full((48, 64, 3), 100, np.uint8)
    plain = Predictor(cfg, tmp_path / "w.pth")(image)["instances"]
    assert not plain.has("pred_box_distributions")
    found = Predictor(cfg, tmp_path / "w.pth", distributions=True)(image)["instances"]
    assert len(found) == len(plain) > 0
    assert found.pred_box_distributions.shape == found.bin_edges.shape == (len(found), 4, 17)
    cfg.train.test_augmentation = {"enabled": True}
    with pytest.raises(ValueError, match="distributions have no test-time augmentation"):
        Predictor(cfg, tmp_path / "w.pth", distributions=True)


def test_distributions_of_a_dirac(tmp_path):
    cfg = load_config(str(Path(__file__).parents[1] / "helpers/toy_config.py"))
    cfg = OmegaConf.create({**cfg, "model": LazyCall(dirac)()}, flags={"allow_objects": True})
    torch.save({"model": dirac().state_dict()}, tmp_path / "w.pth")
    with pytest.raises(TypeError, match="distributions of a box representation DiracDistance"):
        Predictor(cfg, tmp_path / "w.pth", distributions=True)


def dirac():
    return make_gfl(
        head=make_head(3, NoQuality(), DiracDistance()),
        criterion=GFLCriterion(cls_loss=QualityFocalLoss(), box_loss=GIoULoss()),
    )
