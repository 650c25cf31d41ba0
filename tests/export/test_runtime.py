"""OnnxPredictor on files built by hand; Detectron2 is what the tests compare with."""

import dataclasses
import json

import detectron2.data.transforms as T
import numpy as np
import onnxruntime
import pytest
import torch
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, Instances
from PIL import Image

from gfocal.data import read_image
from gfocal.data.mapper import without_empty_resize
from gfocal.engine import Predictor
from gfocal.export import Detections, OnnxPredictor
from gfocal.export.runtime import _in_pixels_of
from tests.export.test_detections import assert_same
from tests.helpers.onnx_files import BOXES, SCORES, THRESHOLD, make_card, weights_of, write_onnx


def expected_of(image: np.ndarray, card) -> Instances:
    """What the file's detector finds, by Detectron2's resizing and post-processing.

    Args:
        image: (H, W, C), channels in the order of the card.
    """
    inputs = T.AugInput(image)
    if card.resize:
        shortest = T.ResizeShortestEdge(card.resize["short_edge"], card.resize["max_size"])
        T.AugmentationList(without_empty_resize([shortest]))(inputs)
    height, width = inputs.image.shape[:2]
    means = inputs.image.reshape(-1, inputs.image.shape[2]).mean(0, dtype=np.float64)
    scores = (means @ weights_of(len(means)) / 255).astype(np.float32) * SCORES
    kept = scores > THRESHOLD
    boxes = torch.from_numpy(BOXES * np.array([width, height] * 2, np.float32))[kept]
    found = Instances((height, width), pred_boxes=Boxes(boxes.clone()))
    found.scores = torch.from_numpy(scores[kept])
    found.pred_classes = torch.arange(len(SCORES))[kept] % card.num_classes
    if card.stds:
        scale = torch.tensor([image.shape[1] / width, image.shape[0] / height] * 2)
        found.pred_box_stds = boxes / 8 * scale
    return detector_postprocess(found, *image.shape[:2])


def assert_close(found: Detections, expected: Instances) -> None:
    """Boxes to the bit, scores to rounding."""
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    found.scores = expected.scores.numpy()
    if found.has("pred_box_stds"):
        np.testing.assert_allclose(found.pred_box_stds, expected.pred_box_stds, rtol=1e-6)
        found.pred_box_stds = expected.pred_box_stds.numpy()
    assert_same(found, expected)


def pictures(*sizes: tuple[int, int], channels: int = 3) -> list[np.ndarray]:
    """Bright, less bright and dark images, with 3, 2 and 0 detections; each channel has its own
    brightness."""
    images = [np.random.randint(190, 200, (*size, channels)) for size in sizes]
    images = [image + 12 * np.arange(channels) for image in images]
    return [(image // (1, 2, 4)[index % 3]).astype(np.uint8) for index, image in enumerate(images)]


@pytest.mark.parametrize("preprocessing", ["inside", "outside"])
@pytest.mark.parametrize("stds", [False, True])
@pytest.mark.parametrize("input_format", ["RGB", "BGR"])
@pytest.mark.parametrize("resize", [{"short_edge": 80, "max_size": 120}, {}])
def test_it_answers_as_detectron2(tmp_path, preprocessing, stds, input_format, resize):
    card = make_card(
        preprocessing=preprocessing, stds=stds, input_format=input_format, resize=resize
    )
    predictor = OnnxPredictor(write_onnx(tmp_path / "model.onnx", card))
    assert predictor.weights == str(tmp_path / "model.onnx") and predictor.card == card
    assert predictor.class_names == ["cat", "dog", "owl"] and predictor.num_classes == 3
    assert predictor.category_ids == [7, 9, 4]
    images = pictures((100, 150), (150, 100), (33, 32), (1, 300), (7, 5), (100, 150))
    numbers = []
    for image in images:
        found = predictor(image)["instances"]
        assert found.has("pred_box_stds") == stds
        turned = image if input_format == "BGR" else image[:, :, ::-1]
        assert_close(found, expected_of(turned, card))
        assert found.image_size == image.shape[:2]
        numbers.append(len(found))
    assert numbers == [3, 2, 0, 3, 2, 0]
    images = [*images, *images[::-1]]
    alone = [predictor(image)["instances"] for image in images]
    for batch_size in (1, 2, 8):
        for found, expected in zip(predictor(images, batch_size), alone, strict=True):
            np.testing.assert_allclose(found["instances"].scores, expected.scores, atol=1e-5)
            found["instances"].scores = expected.scores
            assert_close(found["instances"], expected.to_instances())
    assert predictor([]) == []


def test_post_processing_to_the_bit():
    """Boxes of any numbers, clipped at each border; those that vanish are dropped."""
    for size, in_network in (((480, 641), (800, 1069)), ((1333, 7), (1333, 7)), ((3, 5), (80, 99))):
        centers = np.random.uniform(-50, 1400, (500, 2))
        boxes = np.concatenate([centers, centers + np.random.uniform(-2, 300, (500, 2))], 1)
        boxes = boxes.astype(np.float32)
        found = {"boxes": boxes, "scores": np.random.rand(500).astype(np.float32)}
        found["classes"] = np.random.randint(0, 80, 500)
        expected = Instances(in_network, pred_boxes=Boxes(torch.from_numpy(boxes.copy())))
        expected.scores = torch.from_numpy(found["scores"])
        expected.pred_classes = torch.from_numpy(found["classes"])
        expected = detector_postprocess(expected, *size)
        assert len(expected) < 500
        assert_same(_in_pixels_of(size, in_network, found), expected)


def test_which_images_share_a_batch(tmp_path, monkeypatch):
    """Outside of the graph they are padded: 60 x 90 and 64 x 96 have one size then."""
    images = pictures((60, 90), (64, 96), (60, 90), (65, 90))
    seen: list[tuple[int, ...]] = []
    for preprocessing, shapes in (
        ("inside", [(2, 3, 60, 90), (1, 3, 64, 96), (1, 3, 65, 90)]),
        ("outside", [(3, 3, 64, 96), (1, 3, 96, 96)]),
    ):
        card = make_card(preprocessing=preprocessing, resize={})
        predictor = OnnxPredictor(write_onnx(tmp_path / "model.onnx", card))
        run = predictor.session.run
        seen.clear()
        monkeypatch.setattr(
            predictor.session,
            "run",
            lambda names, feeds, run=run: seen.append(feeds["images"].shape) or run(names, feeds),
        )
        predictor(images)
        assert seen == shapes
        sizes = [predictor.size_in_batch(image.shape[:2]) for image in images]
        assert len({*sizes}) == len(shapes)


def test_what_the_graph_gets_is_normalized_and_padded_with_zeros(tmp_path, monkeypatch):
    card = make_card(preprocessing="outside", resize={})
    predictor = OnnxPredictor(write_onnx(tmp_path / "model.onnx", card))
    fed = {}
    run = predictor.session.run
    monkeypatch.setattr(
        predictor.session, "run", lambda names, feeds: fed.update(feeds) or run(names, feeds)
    )
    predictor(np.full((2, 3, 3), (170, 50, 70), np.uint8))  # BGR
    assert fed["image_sizes"].tolist() == [[2, 3]] and fed["images"].shape == (1, 3, 32, 32)
    expected = np.zeros((3, 32, 32), np.float32)
    expected[:, :2, :3] = np.array([-1.0, -1.0, 1.0]).reshape(3, 1, 1)  # of 70, 50 and 170
    assert np.array_equal(fed["images"][0], expected)


def test_kinds_of_images(tmp_path):
    """A path, a PIL image and an array of a file give the same, whatever is in the file."""
    predictor = OnnxPredictor(write_onnx(tmp_path / "model.onnx"))
    image = Image.fromarray(np.random.randint(0, 256, (60, 90, 3), np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    for mode in ("1", "L", "P", "RGBA", "LA"):
        image.convert(mode).save(tmp_path / f"{mode}.png")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.arange(5400, dtype=np.uint16).reshape(60, 90) * 12).save(tmp_path / "16.png")
    paths = [path for path in tmp_path.iterdir() if path.suffix != ".onnx"]
    assert len(paths) == 8
    for path in paths:
        array = read_image(path, "BGR")
        expected = expected_of(array[:, :, ::-1], predictor.card)
        assert len(expected) and (expected.image_size == (90, 60)) == (path.stem == "turned")
        for kind in (array, path, str(path), Image.open(path)):
            assert_close(predictor(kind)["instances"], expected)
    several = predictor([*paths, Image.open(paths[0])])
    assert len(several) == 9 and len(several[0]["instances"]) == len(several[-1]["instances"])


@pytest.mark.parametrize(("input_format", "channels"), [("L", 1), ("RGBA", 4), ("", 5)])
def test_other_channels(tmp_path, input_format, channels):
    mean = [100.0] * channels
    card = make_card(input_format=input_format, pixel_mean=mean, pixel_std=mean)
    predictor = OnnxPredictor(write_onnx(tmp_path / "model.onnx", card))
    assert predictor.read_format == (input_format or None)
    (image,) = pictures((60, 90), channels=channels)
    np.save(tmp_path / "image.npy", image)
    array = image if channels < 5 else image.astype(np.float32)
    expected = expected_of(array, card)
    for kind in (array, tmp_path / "image.npy"):
        found = predictor(kind)["instances"]
        assert len(found) == 3
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    with pytest.raises(ValueError, match=rf"\(H, W, {channels}\) in the model's format, got shape"):
        predictor(np.zeros((8, 8, 2), np.uint8))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), TypeError, "expected a uint8 array .*, got float32"),
        (torch.zeros(4, 4, 3), TypeError, "got Tensor"),
        (Image.new("F", (4, 4)), ValueError, "floating-point"),
        (np.zeros((4, 4), np.uint8), ValueError, r"got shape \(4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"got shape \(0, 4, 3\)"),
        ("nothing.png", FileNotFoundError, "no image file 'nothing.png'"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, image, error, message):
    predictor = OnnxPredictor(write_onnx(tmp_path / "model.onnx"))
    with pytest.raises(error, match=message):
        predictor(image)
    with pytest.raises(error, match=f"{message}" if "file" in message else f"image 1: .*{message}"):
        predictor([np.zeros((4, 4, 3), np.uint8), image])
    with pytest.raises(ValueError, match="batch_size is 0; expected an integer of at least 1"):
        predictor([], batch_size=0)


def test_a_file_that_does_not_know_its_classes(tmp_path):
    card = make_card(class_names=[], category_ids=[])
    predictor = OnnxPredictor(write_onnx(tmp_path / "model.onnx", card))
    assert predictor.class_names is None and predictor.category_ids is None


def test_files_that_are_no_models(tmp_path):
    with pytest.raises(FileNotFoundError, match="^no ONNX file '.*none.onnx' .working directory: "):
        OnnxPredictor(tmp_path / "none.onnx")
    whole = write_onnx(tmp_path / "model.onnx").read_bytes()
    damaged = tmp_path / "damaged.onnx"
    for data in (b"", b"no model", whole[: len(whole) // 2], whole[:-1], whole[:20]):
        damaged.write_bytes(data)
        with pytest.raises(ValueError, match=f"^{damaged} ") as caught:
            OnnxPredictor(damaged)
        assert "\n" not in str(caught.value)
        assert "is damaged (" in str(caught.value) or "no metadata" in str(caught.value)
    write_onnx(tmp_path / "other.onnx", metadata=None)
    with pytest.raises(ValueError, match=r"other.onnx has no metadata 'gfocal': gfocal export did"):
        OnnxPredictor(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": "decoded"}, "is of level 'decoded', .* expected one of gfocal export --level f"),
        ({"resize": None}, "does not say how an image is resized"),
        ({"resize": {"short": 3}}, "metadata 'gfocal' has resize {'short': 3}, with num_classes 3"),
        ({"resize": {"short_edge": 0}}, "has resize {'short_edge': 0}"),
        ({"class_names": ["cat"]}, r"has class_names \['cat'\], with num_classes 3"),
        ({"category_ids": [1, 2]}, r"has category_ids \[1, 2\]"),
        ({"pixel_std": [1.0, 0.0, 1.0]}, r"has pixel_std \[1.0, 0.0, 1.0\]"),
        ({"size_divisibility": 0}, "has size_divisibility 0"),
        ({"num_classes": "3"}, "in its metadata 'gfocal' num_classes is '3'"),
    ],
)
def test_cards_that_are_wrong(tmp_path, changes, message):
    text = json.dumps({**dataclasses.asdict(make_card()), **changes})
    path = write_onnx(tmp_path / "model.onnx", metadata=text)
    with pytest.raises(ValueError, match=f"^{path}.*{message}"):
        OnnxPredictor(path)


def test_a_card_that_lacks_a_field(tmp_path):
    fields = dataclasses.asdict(make_card())
    del fields["pixel_mean"], fields["resize"]
    path = write_onnx(tmp_path / "model.onnx", metadata=json.dumps(fields))
    with pytest.raises(ValueError, match="model.onnx: its metadata 'gfocal' lacks pixel_mean, res"):
        OnnxPredictor(path)


def test_graphs_that_are_not_their_cards(tmp_path):
    path = tmp_path / "model.onnx"
    write_onnx(path, metadata=make_card(stds=True).to_json())
    with pytest.raises(ValueError, match=r"its outputs are boxes .* its metadata tells, .*stds"):
        OnnxPredictor(path)
    write_onnx(path, metadata=make_card(preprocessing="outside").to_json())
    with pytest.raises(ValueError, match=r"its inputs are images tens.* image_sizes tensor.int64"):
        OnnxPredictor(path)
    write_onnx(path, outputs=["boxes", "scores"])
    with pytest.raises(ValueError, match=r"its outputs are boxes tensor\(float\) \(D, 4\), scores"):
        OnnxPredictor(path)
    four = [1.0] * 4
    write_onnx(path, metadata=make_card(pixel_mean=four, pixel_std=four).to_json())
    with pytest.raises(ValueError, match=r"images tensor\(float\) \(N, 3, H, W\); .*\(\?, 4, \?, "):
        OnnxPredictor(path)
    write_onnx(path, inputs=[1, 3, "H", "W"])
    with pytest.raises(ValueError, match=r"input images has the fixed shape \[1, 3, 'H', 'W'\]"):
        OnnxPredictor(path)


def test_outputs_that_no_right_graph_has(tmp_path):
    path, image = tmp_path / "model.onnx", np.full((60, 90, 3), 200, np.uint8)
    write_onnx(path, more_classes=1)
    with pytest.raises(ValueError, match="model.onnx: the graph gave classes from 1 to 3 of 3"):
        OnnxPredictor(path)(image)
    write_onnx(path, scale_of_idxs=-1)
    with pytest.raises(ValueError, match="detections that are not in the order of its 2 images"):
        OnnxPredictor(path)([image, image])
    write_onnx(path, boxes=np.where(BOXES == 0.9, np.float32(np.nan), BOXES))
    with pytest.raises(ValueError, match="the graph gave boxes or scores that are not finite"):
        OnnxPredictor(path)(image)


def test_providers_and_threads(tmp_path):
    path = write_onnx(tmp_path / "model.onnx")
    predictor = OnnxPredictor(path, providers=["CPUExecutionProvider"], threads=1)
    assert predictor.session.get_providers() == ["CPUExecutionProvider"]
    assert predictor.session.get_session_options().intra_op_num_threads == 1
    assert "CPUExecutionProvider" in OnnxPredictor(path).session.get_providers()
    with pytest.raises(ValueError, match="providers has 'GPU'; this onnxruntime .* has .*CPUExec"):
        OnnxPredictor(path, providers=["GPU"])
    for threads, error in ((0, ValueError), ("2", TypeError), (True, TypeError)):
        with pytest.raises(error, match=f"threads is {threads!r}; expected"):
            OnnxPredictor(path, threads=threads)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start(tmp_path, monkeypatch):
    """onnxruntime would go on with the CPU."""
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    path = write_onnx(tmp_path / "model.onnx")
    assert OnnxPredictor(path).session.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(ValueError, match="the provider CUDAExecutionProvider does not start on"):
        OnnxPredictor(path, providers=["CUDAExecutionProvider"])


def test_onnxruntime_is_not_installed(tmp_path, monkeypatch):
    path = write_onnx(tmp_path / "model.onnx")
    monkeypatch.setattr("gfocal.export.onnx_file.is_installed", lambda name: False)
    with pytest.raises(ImportError, match=r"need onnxruntime, .*: pip install gfocal\[export\]"):
        OnnxPredictor(path)


@pytest.mark.parametrize("suffix", [".onnx", ".ts", ".pt2", ".ONNX"])
def test_a_predictor_of_checkpoints_points_here(tmp_path, suffix):
    with pytest.raises(
        ValueError, match=f"model{suffix} is .* Expected a checkpoint, such as"
    ) as error:
        Predictor(tmp_path / f"model{suffix}")
    assert ("gfocal.export.OnnxPredictor" in str(error.value)) == (suffix.lower() == ".onnx")
