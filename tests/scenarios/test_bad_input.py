"""What users feed a detector by mistake, from the file to the losses and the detections.

What a single part does with it is tested beside the part: data/test_mapper.py (files, modes,
sizes), data/test_coco.py (jsons), detectors/test_gfl.py (boxes, classes, regions at the model),
config/test_overrides.py (keys and their values), weights/ (weight files).
"""

import contextlib
import signal

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetFromList, build_detection_test_loader
from detectron2.data.samplers import InferenceSampler
from detectron2.structures import BoxMode
from PIL import Image

from gfocal import model_zoo
from gfocal.data import (
    DetectionMapper,
    build_train_loader,
    detection_dataset_dicts,
    register_coco_json,
)
from gfocal.engine import load_config
from tests.helpers.coco_files import valid_document, write_dataset
from tests.helpers.detectors import DETECTORS, each_detector, losses_of
from tests.helpers.tiny import make_gfl, make_input


@contextlib.contextmanager
def at_most(seconds):
    """Ends what hangs."""

    def stop(*args):
        raise TimeoutError(f"nothing came in {seconds} seconds")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def make_mapper(is_train=True, **kwargs):
    resize = T.ResizeShortestEdge(64, max_size=128)
    return DetectionMapper(is_train, augmentations=[resize], image_format="BGR", **kwargs)


def annotation(x1, y1, x2, y2, category_id=0, **kwargs):
    return {
        "bbox": [x1, y1, x2, y2],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category_id,
        **kwargs,
    }


def write_image(folder, image, name="image.png", annotations=None, **kwargs):
    """The dataset dict of an image, of which a box covers all if nothing else is said."""
    image.save(folder / name, **kwargs)
    width, height = image.size
    return {
        "file_name": str(folder / name),
        "image_id": 7,
        "height": height,
        "width": width,
        "annotations": [annotation(0, 0, width, height)] if annotations is None else annotations,
    }


def grey(height=40, width=60, dtype=np.uint8):
    values = np.arange(height * width).reshape(height, width)
    return (values * (np.iinfo(dtype).max / values.size)).astype(dtype)


def check_training(model, inputs):
    """Losses and gradients are finite; returns the losses."""
    model.train().zero_grad()
    losses = model(inputs)
    sum(losses.values()).backward()
    assert all(loss.isfinite() and loss >= 0 for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    return losses


def check_inference(model, inputs):
    """Detections lie in the image, of the size that the file has; returns how many."""
    with torch.no_grad():
        results = model.eval()(inputs)
    for result, image in zip(results, inputs, strict=True):
        instances = result["instances"]
        height, width = instances.image_size
        assert (height, width) == (image["height"], image["width"])
        boxes = instances.pred_boxes.tensor
        assert (boxes >= 0).all()
        assert (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all()
    return sum(len(result["instances"]) for result in results)


IMAGES = {
    "1 x 1": Image.fromarray(grey(1, 1)),
    "1 x 5000": Image.fromarray(grey(5000, 1)),
    "5000 x 1": Image.fromarray(grey(1, 5000)),
    "16 bit": Image.fromarray(grey(dtype=np.uint16)),
    "grey": Image.fromarray(grey()),
    "palette": Image.fromarray(grey()).convert("RGB").quantize(7),
    "RGBA": Image.fromarray(grey()).convert("RGBA"),
    "1 bit": Image.fromarray(grey() > 99),
}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES.keys())
def test_odd_images_train_and_are_answered(tmp_path, image):
    model = make_gfl(test_score_thresh=0.001)
    dataset_dict = write_image(tmp_path, image)
    inputs = make_mapper()(dataset_dict)
    assert len(inputs["instances"]) == 1
    check_training(model, [inputs])
    assert check_inference(model, [make_mapper(False)(dataset_dict)]) > 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000)])
def test_extreme_shapes_and_the_quick_start_model(tmp_path, shape):
    cfg = load_config(model_zoo.get_config_file("quick_start/shapes_gflv2.py"))
    cfg.model.test_score_thresh = 0.001
    cfg.dataloader.train.mapper.augmentations[0].update(short_edge_length=64, max_size=512)
    cfg.dataloader.test.mapper.augmentations[0].update(short_edge_length=64, max_size=512)
    model = instantiate(cfg.model)
    dataset_dict = write_image(tmp_path, Image.fromarray(grey(*shape)))
    inputs = instantiate(cfg.dataloader.train.mapper)(dataset_dict)
    assert inputs["image"].shape == ((3, 64, 64) if shape == (1, 1) else (3, 1, 512))
    check_training(model, [inputs, inputs])
    assert check_inference(model, [instantiate(cfg.dataloader.test.mapper)(dataset_dict)]) > 0


BOXES = {  # what is left of a box in a 40 x 60 image
    "wholly outside": ([70, 10, 90, 20], None),
    "without area": ([10, 10, 10, 20], None),
    "far beyond": ([-1e30, -1e30, 1e30, 1e30], [0, 0, 60, 40]),
    "reaching outside": ([-20, 10, 20, 90], [0, 10, 20, 40]),
    "below float's resolution": ([50, 10, 50 + 1e-9, 20], None),
}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
@pytest.mark.parametrize("mode", [BoxMode.XYXY_ABS, BoxMode.XYWH_ABS])
def test_boxes_of_datasets_that_nobody_checked(tmp_path, box, mode):
    """Those of Detectron2's loaders, say; without Detectron2's resize, so in pixels of the file."""
    box, expected = box
    mapper = DetectionMapper(True, augmentations=[], image_format="BGR")
    record = annotation(*BoxMode.convert(box, BoxMode.XYXY_ABS, mode))
    dataset_dict = write_image(
        tmp_path, Image.fromarray(grey()), annotations=[{**record, "bbox_mode": mode}]
    )
    inputs = mapper(dataset_dict)
    assert inputs["instances"].gt_boxes.tensor.tolist() == ([] if expected is None else [expected])
    check_training(make_gfl(), [inputs])


BOX = [3.0, 2.0, 63.0, 58.0]


@each_detector
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (make_input(32, 32, [[5.0, 5, 5, 9]], image_id=7, file_name="a.jpg"), r"image 7 \(a.jpg\)"),
        (make_input(32, 32, [[5.0, 5, float("nan"), 9]]), r"degenerate box \[5.0, 5.0, nan, 9.0\]"),
        (make_input(32, 32, [[5.0, 5, float("inf"), 9]]), r"degenerate box \[5.0, 5.0, inf, 9.0\]"),
        (make_input(32, 32, [[9.0, 5, 5, 9]]), "x1 > x0"),
        (make_input(32, 32, [BOX], [3], file_name="b.jpg"), r"b.jpg\) has class 3; expected 0..2"),
        (make_input(32, 32, [BOX], [-1]), "has class -1"),
        ({"image": torch.zeros(3, 32, 32), "file_name": "c.jpg"}, r'c.jpg\) has no "instances"'),
        ({**make_input(32, 32), "image": torch.zeros(1, 32, 32), "file_name": "d.jpg"},
         "d.jpg: an image of 1 channels; pixel_mean has 3"),
        ({**make_input(32, 32), "image": torch.zeros(4, 32, 32)}, "an image of 4 channels"),
    ],
)  # fmt: skip
def test_bad_ground_truth_and_images(name, inputs, message):
    """Also behind a good image."""
    model = DETECTORS[name](num_classes=3)
    for batch in ([inputs], [make_input(32, 32, [BOX]), inputs]):
        with pytest.raises(ValueError, match=message):
            losses_of(model, batch)
    if "channels" in message:
        with pytest.raises(ValueError, match=message):
            model.eval()([inputs])


def test_a_category_beyond_num_classes_names_the_file(tmp_path):
    dataset_dict = write_image(
        tmp_path, Image.fromarray(grey()), annotations=[annotation(1, 2, 30, 40, 3)]
    )
    message = rf"image 7 \({dataset_dict['file_name']}\) has class 3; expected 0..2"
    with pytest.raises(ValueError, match=message):
        make_gfl(num_classes=3)([make_mapper()(dataset_dict)])


# Datasets


def register(tmp_path, document):
    json_file, image_root = write_dataset(tmp_path, document)
    return register_coco_json("mine", json_file=json_file, image_root=image_root)


def test_a_dataset_of_crowds_alone_trains_where_crowds_are_ignored(tmp_path):
    """By one override, which the dataset follows."""
    document = valid_document()
    for record in document["annotations"]:
        record["iscrowd"] = 1
    json_file, images = write_dataset(tmp_path, document)
    overrides = [
        *(f"data.{name}_json={json_file}" for name in ("train", "val")),
        *(f"data.{name}_images={images}" for name in ("train", "val")),
        "data.min_size=64",
        "data.max_size=128",
        "data.batch_size=2",
        "data.num_workers=0",
    ]
    path = model_zoo.get_config_file("quick_start/custom_coco.py")
    with pytest.raises(ValueError, match="no image with a box that is no crowd in custom_coco_tr"):
        instantiate(load_config(path, overrides).dataloader.train)
    cfg = load_config(path, [*overrides, "dataloader.train.mapper.crowds=ignore"])
    inputs = next(iter(instantiate(cfg.dataloader.train)))
    del cfg.dataloader.train.mapper.crowds
    assert cfg.dataloader.train.dataset.crowds == "drop"  # with a mapper that has no such word
    assert [len(x["ignore_regions"]) for x in inputs] == [2, 2]
    losses = check_training(make_gfl(), inputs)
    assert losses["loss_cls"] > 0 and losses["loss_box_reg"] == losses["loss_dfl"] == 0


def test_a_dataset_without_annotations(tmp_path):
    name = register(tmp_path, {**valid_document(), "annotations": []})
    with pytest.raises(ValueError, match=r"no image with a box .* in mine \(.*train\.json\)"):
        detection_dataset_dicts(name)
    inputs = [make_mapper()(x) for x in detection_dataset_dicts(name, filter_empty=False)]
    losses = check_training(make_gfl(), inputs)
    assert losses["loss_cls"] > 0 and losses["loss_box_reg"] == losses["loss_dfl"] == 0


def test_a_dataset_without_images(tmp_path):
    name = register(tmp_path, {**valid_document(), "images": [], "annotations": []})
    with pytest.raises(ValueError, match=r"train\.json has no usable image"):
        detection_dataset_dicts(name)
    with pytest.raises(ValueError, match="the training set has no images"):
        build_train_loader([], mapper=make_mapper(), total_batch_size=1)


# Errors in worker processes


def make_train_loader(dicts, num_workers):
    return build_train_loader(
        dicts, mapper=make_mapper(), total_batch_size=1, num_workers=num_workers, seed=0
    )


def make_test_loader(dicts, num_workers):
    return build_detection_test_loader(
        DatasetFromList(dicts),
        mapper=make_mapper(False),
        sampler=InferenceSampler(len(dicts)),
        num_workers=num_workers,
    )


@pytest.mark.parametrize("make_loader", [make_train_loader, make_test_loader])
@pytest.mark.parametrize("broken", ["truncated", "missing"])
def test_an_error_in_a_worker_reaches_the_user_with_the_files_name(tmp_path, make_loader, broken):
    dicts = [write_image(tmp_path, Image.fromarray(grey()), f"{i}.jpg") for i in range(3)]
    path = tmp_path / "2.jpg"
    if broken == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    else:
        path.unlink()
    error = ValueError if broken == "truncated" else FileNotFoundError
    with at_most(60), pytest.raises(error, match=rf"image 7 \({path}\)") as caught:
        for _, _ in zip(range(20), make_loader(dicts, num_workers=1)):
            pass
    assert "worker process 0" in str(caught.value)
