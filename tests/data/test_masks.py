"""Masks from a json to a batch: Detectron2's answers, and named errors where there are none."""

import sys

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from PIL import Image
from pycocotools import mask as coco

from gfocal.config import add_gfocal_config
from gfocal.data import (
    DetectionMapper,
    build_train_loader,
    dataset_evaluator,
    detection_dataset_dicts,
    read_coco_json,
)
from gfocal.data.coco import survey_dataset
from gfocal.data.coco_evaluation import known_metrics
from gfocal.data.dict_checks import dict_defects
from gfocal.data.masks import _unpacked, mask_defect, usable_mask
from gfocal.data.placement import PlaceTransform
from gfocal.data.probes import _same, probe_train_loader
from gfocal.data.run_lengths import pack_mask
from gfocal.data.shapes import register_shapes
from tests.helpers.coco_files import register, valid_document, write_dataset

TRIANGLE, SQUARE = [4.0, 4.0, 24.0, 6.0, 10.0, 30.0], [30.0, 5.0, 50.0, 5.0, 50.0, 25.0, 30.0, 25.0]


def annotation(segmentation, box, **kwargs):
    return {
        "bbox": box,
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 1,
        "segmentation": segmentation,
        **kwargs,
    }


@pytest.fixture
def image(tmp_path):
    path = str(tmp_path / "image.png")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    annotations = [
        annotation([TRIANGLE], [4.0, 4.0, 24.0, 30.0]),
        annotation([SQUARE, TRIANGLE[:4]], [30.0, 5.0, 50.0, 25.0]),
        annotation(None, [0.0, 0.0, 60.0, 40.0], iscrowd=1),
    ]
    return {"file_name": path, "image_id": 7, "height": 40, "width": 60, "annotations": annotations}


def mapper(*augmentations, mask_format="polygon", **kwargs):
    return DetectionMapper(
        True,
        augmentations=augmentations,
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format=mask_format,
        **kwargs,
    )


def run_lengths(segmentation, height=40, width=60):
    """The same mask as run lengths: of pycocotools' text, and uncompressed."""
    packed = coco.merge(coco.frPyObjects([x for x in segmentation if len(x) >= 6], height, width))
    pixels = coco.decode(packed).flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], pixels]))).tolist()
    counts = np.diff([0, *edges, len(pixels)]).tolist()
    return packed, {"size": [height, width], "counts": counts}


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize("seed", range(3))
def test_the_same_as_detectron2s_mapper(image, mask_format, seed):
    image["annotations"][1]["segmentation"].pop()  # Detectron2 takes no polygon of two corners
    augmentations = [T.ResizeShortestEdge([30, 55], 99, "choice"), T.RandomFlip()]
    theirs = DatasetMapper(
        True,
        augmentations=augmentations,
        image_format="BGR",
        use_instance_mask=True,
        instance_mask_format=mask_format,
    )
    np.random.seed(seed)
    expected = theirs({**image, "annotations": image["annotations"][:2]})["instances"]
    np.random.seed(seed)
    found = mapper(*augmentations, mask_format=mask_format)(image)["instances"]
    torch.testing.assert_close(found.gt_boxes.tensor, expected.gt_boxes.tensor)
    if mask_format == "bitmask":
        assert isinstance(found.gt_masks, BitMasks)
        assert torch.equal(found.gt_masks.tensor, expected.gt_masks.tensor)
    else:
        assert isinstance(found.gt_masks, PolygonMasks)
        for ours, of_theirs in zip(found.gt_masks.polygons, expected.gt_masks.polygons):
            np.testing.assert_allclose(ours, of_theirs)
    assert len(found) == 2


def test_run_lengths(image):
    polygons = mapper(T.RandomFlip(1.0), mask_format="bitmask")(image)["instances"].gt_masks.tensor
    for kind in (0, 1):
        for entry in image["annotations"][:2]:
            segmentation = entry.setdefault("polygons", entry["segmentation"])
            entry["segmentation"] = run_lengths(segmentation)[kind]
        found = mapper(T.RandomFlip(1.0), mask_format="bitmask")(image)["instances"].gt_masks.tensor
        assert found.dtype == torch.bool and 200 < found[0].sum() < 300
        assert (found != polygons).sum() <= 40  # pixels that a polygon's edge runs through
    with pytest.raises(ValueError, match=r"image 7 .*run lengths.*expected \"bitmask\""):
        mapper()(image)


def test_what_is_outside_of_an_image_is_in_no_mask(image):
    """A crop with padding: its filling has a value of its own in segmentations."""
    place = PlaceTransform((40, 60), (0, 0, 45, 40), (50, 70), (5, 8))
    for entry in image["annotations"][:2]:
        entry["segmentation"] = run_lengths(entry["segmentation"])[0]
    masks = mapper(place, mask_format="bitmask")(image)["instances"].gt_masks.tensor
    assert masks.shape == (2, 50, 70) and masks[0].sum() < 300 and masks[1].sum() == 300
    assert not masks[:, 48:].any() and not masks[:, :8].any()
    assert not masks[..., 50:].any() and not masks[..., :5].any()


CROP, PAD = T.CropTransform(10, 8, 30, 12, 60, 40), T.PadTransform(3, 2, 7, 9, 30, 12)
PLACE = PlaceTransform((40, 60), (10, 8, 40, 20), (23, 40), (3, 2), drop=False)


@pytest.mark.parametrize("transforms", [(CROP, PAD), (PLACE,)], ids=["crop and pad", "place"])
def test_what_a_crop_cut_off_does_not_come_back(image, transforms, monkeypatch):
    monkeypatch.setitem(sys.modules, "shapely", None)  # pixels do not need it
    whole = mapper(mask_format="bitmask")(image)["instances"].gt_masks.tensor
    found = mapper(*transforms, mask_format="bitmask", recompute_boxes=True)(image)["instances"]
    expected = torch.zeros(2, 23, 40, dtype=torch.bool)
    expected[:, 2:14, 3:33] = whole[:, 8:20, 10:40]
    assert torch.equal(found.gt_masks.tensor, expected)
    assert found.gt_boxes.tensor[1].tolist() == [23, 2, 33, 14]


def test_cropped_polygons_need_a_package(image, monkeypatch):
    for name in ("shapely", "shapely.geometry"):
        monkeypatch.setitem(sys.modules, name, None)
    loader = build_train_loader([image], mapper=mapper(CROP), total_batch_size=1, seed=0)
    with pytest.raises(ValueError, match="CropTransform needs the package shapely, .*pip install"):
        probe_train_loader(loader)


def test_a_dropped_object_has_no_mask(image):
    place = PlaceTransform((40, 60), (0, 0, 28, 40), (40, 28), (0, 0))  # the square's centre is out
    found = mapper(place)(image)["instances"]
    assert len(found) == len(found.gt_masks) == 1
    found = mapper(place, recompute_boxes=True)(image)["instances"]
    assert found.gt_boxes.tensor.tolist() == [[4.0, 4.0, 24.0, 30.0]]


def test_recomputed_boxes(image):
    image["annotations"][0]["bbox"] = [0.0, 0.0, 60.0, 40.0]
    found = mapper(recompute_boxes=True)(image)["instances"]
    assert found.gt_boxes.tensor.tolist() == [[4.0, 4.0, 24.0, 30.0], [30.0, 5.0, 50.0, 25.0]]
    with pytest.raises(ValueError, match="recompute_boxes is True; expected use_instance_mask"):
        DetectionMapper(True, augmentations=[], image_format="BGR", recompute_boxes=True)


def test_without_masks_or_with_another_format(image):
    del image["annotations"][1]["segmentation"]
    with pytest.raises(ValueError, match=r"image 7 .*annotation 1 has no segmentation.*MASK_ON"):
        mapper()(image)
    with pytest.raises(ValueError, match="instance_mask_format .* is 'rle'; expected"):
        mapper(mask_format="rle")


def test_no_objects(image):
    for mask_format in ("polygon", "bitmask"):
        found = mapper(mask_format=mask_format)({**image, "annotations": []})["instances"]
        assert len(found) == len(found.gt_masks) == 0


def test_yacs(image):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.MODEL.MASK_ON, cfg.INPUT.MASK_FORMAT = True, "bitmask"
    ours = DetectionMapper(cfg, True)
    assert isinstance(ours(image)["instances"].gt_masks, BitMasks)
    assert not ours.recompute_boxes
    cfg.INPUT.CROP.ENABLED = True
    assert DetectionMapper(cfg, True).recompute_boxes
    assert not DetectionMapper(cfg, False).recompute_boxes


def test_maskings_are_compared():
    """The look at a mapper before a training sees masks that differ."""
    first, second = PolygonMasks([[TRIANGLE]]), PolygonMasks([[SQUARE]])
    assert _same(first, PolygonMasks([[TRIANGLE]])) and not _same(first, second)


# Datasets


GOOD = {"size": [48, 64], "counts": [10, 50, 48 * 64 - 60]}


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        (None, "without a mask"),
        ([], "without a mask"),
        ([[1, 2, 3, 4]], "without a polygon of 3 corners"),
        ([[1, 2, 3, 4, 5]], "with a polygon that is no list of x, y"),
        ([[1, 2, 3, 4, 5, "6"]], "with a polygon of other than finite numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "with a polygon of other than finite numbers"),
        ([5, 6], "with a polygon that is no list of x, y"),
        ("mask", "with a mask that is neither polygons nor run lengths"),
        ({**GOOD, "size": [64, 48]}, "with a mask of another size than the image"),
        ({"counts": "x"}, "with a mask that has no size and counts"),
        ({**GOOD, "counts": [48 * 64]}, "with an empty mask"),
        ({**GOOD, "counts": [42, 10, 10, 10]}, "with run lengths of another sum"),
        ({**GOOD, "counts": [5, -3, 48 * 64 - 2]}, "with run lengths that cannot be read"),
        ({**GOOD, "counts": ["a"]}, "with run lengths that cannot be read"),
        ({**GOOD, "counts": "é"}, "with run lengths that cannot be read"),
        ({**GOOD, "counts": "zzzz"}, "with run lengths"),
        ({**GOOD, "counts": ""}, "with run lengths that cannot be read"),
        ([[1, 2], TRIANGLE], None),
        (GOOD, None),
        (coco.frPyObjects(GOOD, 48, 64), None),
        ([np.array(TRIANGLE)], None),
    ],
)
def test_defects(segmentation, reason):
    found = mask_defect(segmentation, 48, 64)
    assert found is None if reason is None else found.startswith(reason)


def with_masks(document):
    for entry in document["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return document


def test_a_dataset_with_masks(tmp_path):
    document = with_masks(valid_document())
    name = register(write_dataset(tmp_path, document))
    with_them = detection_dataset_dicts(name, masks=True)
    first = with_them[0]["annotations"][0]
    assert len(first["segmentation"][0]) == 8
    without = detection_dataset_dicts(name)
    assert all("segmentation" not in a for x in without for a in x["annotations"])
    assert "segmentation" in DatasetCatalog.get(name)[0]["annotations"][0]


def test_an_object_without_a_mask_is_an_error_or_dropped(tmp_path):
    document = with_masks(valid_document())
    document["annotations"][1]["segmentation"] = [[1, 2, 3, 4]]
    files = write_dataset(tmp_path, document)
    name = register(files)
    assert len(detection_dataset_dicts(name)) == 2  # nobody asked for masks
    with pytest.raises(ValueError, match=r"annotation 2 of image 7 .*without a polygon of 3 corn"):
        detection_dataset_dicts(name, masks=True)
    assert survey_dataset(name, masks=True).refused and not survey_dataset(name).refused
    dropped = register(files, on_invalid="drop")
    counts = [
        sum(len(x["annotations"]) for x in detection_dataset_dicts(dropped, masks=masks))
        for masks in (False, True)
    ]
    assert counts[0] == counts[1] + 1


@pytest.mark.parametrize("seed", range(5))
def test_text_of_run_lengths(seed):
    """Of pycocotools, of which it knows the lengths."""
    rng = np.random.default_rng(seed)
    mask = np.asfortranarray(rng.random((37, 61)) < rng.uniform(0.02, 0.98), dtype=np.uint8)
    packed = coco.encode(mask)
    pixels = mask.flatten(order="F")
    starts = np.flatnonzero(np.diff(np.concatenate([[0], pixels])))
    assert _unpacked(packed["counts"]) == np.diff([0, *starts, mask.size]).tolist()
    assert mask_defect(packed, 37, 61) is None
    cut = {**packed, "counts": packed["counts"][:-1]}
    assert mask_defect(cut, 37, 61).startswith("with run lengths")


def test_usable_masks():
    assert usable_mask([[1, 2, 3, 4], TRIANGLE], 48, 64) == [TRIANGLE]
    assert usable_mask([[1, 2, 3, 4]], 48, 64) is None
    packed = usable_mask(GOOD, 48, 64)
    assert isinstance(packed["counts"], str) and coco.area(packed) == 50


def test_polygons_are_cut_like_pixels():
    """A crop of an L-shaped object that sees an arm of it: by pixels and by polygons."""
    corners = np.array([[4.0, 4], [10, 4], [10, 24], [30, 24], [30, 30], [4, 30]])
    place = PlaceTransform((40, 60), (8, 20, 28, 38), (30, 40), (3, 5))
    (cut,) = place.apply_polygons([corners])
    mask = coco.decode(coco.frPyObjects([corners.flatten().tolist()], 40, 60)[0])
    expected = place.apply_segmentation(mask) == 1
    found = coco.decode(coco.frPyObjects([cut.flatten().tolist()], 30, 40)[0]).astype(bool)
    np.testing.assert_array_equal(found, expected)
    assert place.apply_polygons([corners - 100]) == []


# Evaluation


def detections_of(dicts, shift=0):
    for entry in dicts:
        objects = [x for x in entry["annotations"] if not x["iscrowd"]]
        instances = Instances((entry["height"], entry["width"]))
        boxes = torch.tensor([x["bbox"] for x in objects]).reshape(-1, 4)
        instances.pred_boxes = Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
        instances.pred_classes = torch.tensor([x["category_id"] for x in objects])
        instances.scores = torch.linspace(0.9, 0.5, len(objects))
        size = instances.image_size
        polygons = PolygonMasks([x["segmentation"] for x in objects])
        masks = BitMasks.from_polygon_masks(polygons, *size).tensor
        instances.pred_masks = masks.roll(shift, dims=2)
        yield {"image_id": entry["image_id"]}, {"instances": instances}


def evaluated(name, shift=0, **kwargs):
    evaluator = dataset_evaluator(name, **kwargs)
    evaluator.reset()
    for inputs, outputs in detections_of(detection_dataset_dicts(name, masks=True), shift):
        evaluator.process([inputs], [outputs])
    return evaluator.evaluate()


@pytest.fixture
def shapes(tmp_path):
    return register_shapes("val", root=str(tmp_path), num_images=4, image_size=128)


@pytest.mark.parametrize("limit", [None, 300])
def test_masks_are_evaluated(shapes, limit):
    results = evaluated(shapes, max_detections=limit)
    assert results["bbox"]["AP"] == pytest.approx(100) == results["segm"]["AP"]
    results = evaluated(shapes, 12, max_detections=limit, tasks=["bbox", "segm"])
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert 0 < results["segm"]["AP"] < 60  # only the masks were moved
    assert set(evaluated(shapes, tasks=["bbox"])) == {"bbox"}


def test_the_limit_changes_no_number_of_masks(shapes):
    hundred, more = (evaluated(shapes, 3, max_detections=x)["segm"] for x in (100, 300))
    assert hundred == pytest.approx(more, nan_ok=True)


def test_names_of_metrics(shapes):
    assert "segm/AP-ring" not in known_metrics(dataset_evaluator(shapes))
    names = known_metrics(dataset_evaluator(shapes, tasks=["bbox", "segm"]))
    assert {"segm/AP-ring", "segm/AP50", "bbox/AP"} < names
    with pytest.raises(ValueError, match=r"tasks are \['mask'\]; expected"):
        dataset_evaluator(shapes, tasks=["mask"])
    MetadataCatalog.get("of_lvis").set(evaluator_type="lvis")
    DatasetCatalog.register("of_lvis", list)
    try:
        with pytest.raises(ValueError, match="'of_lvis' has the evaluator_type 'lvis', and no ta"):
            dataset_evaluator("of_lvis", tasks=["segm"])
    finally:
        DatasetCatalog.remove("of_lvis")
        MetadataCatalog.remove("of_lvis")


def test_detections_with_masks_and_annotations_without(tmp_path, shapes):
    name = register(write_dataset(tmp_path / "other", valid_document()))
    evaluator = dataset_evaluator(name)
    evaluator.reset()
    for inputs, outputs in detections_of(detection_dataset_dicts(shapes, masks=True)):
        outputs["instances"].pred_classes %= 3
        evaluator.process([inputs | {"image_id": 7}], [outputs])
    with pytest.raises(ValueError, match=r"have masks, and 3 of 4 annotations.*image 7.*tasks="):
        evaluator.evaluate()


def test_masks_that_nobody_gives(shapes):
    evaluator = dataset_evaluator(shapes, tasks=["bbox", "segm"])
    evaluator.reset()
    for inputs, outputs in detections_of(detection_dataset_dicts(shapes, masks=True)):
        outputs["instances"].remove("pred_masks")
        evaluator.process([inputs], [outputs])
    with pytest.raises(ValueError, match="tasks are bbox and segm, and the detections have no mas"):
        evaluator.evaluate()


@pytest.mark.parametrize("tasks", [None, ["bbox", "segm"]])
def test_what_pycocotools_cannot_read_is_put_right(tmp_path, tasks):
    """A first polygon of two corners, a crowd without a mask, and run lengths of a wrong sum."""
    document = with_masks(valid_document())
    for entry in document["annotations"]:
        entry["iscrowd"] = 0
    document["annotations"][0]["segmentation"].insert(0, [1, 2, 5, 6])
    document["annotations"][1].update(iscrowd=1, segmentation=None)
    name = register(write_dataset(tmp_path, document))
    assert evaluated(name, tasks=tasks)["segm"]["AP"] == pytest.approx(100)
    document["annotations"][0]["segmentation"] = {"size": [48, 64], "counts": [42, 10, 10, 10]}
    name = register(write_dataset(tmp_path / "wrong", document))
    with pytest.raises(ValueError, match="with run lengths of another sum|with a mask of another"):
        detection_dataset_dicts(name, masks=True)
    counted = [
        x["segmentation"]
        for x in DatasetCatalog.get(name)[0]["annotations"]
        if x.get("segmentation")
    ]
    assert all(isinstance(x, list) for x in counted)  # the wrong one is none


def test_the_area_of_a_mask_where_the_json_has_none(tmp_path):
    document = with_masks(valid_document())
    for entry in document["annotations"]:
        entry.pop("area", None)
        x, y, w, h = entry["bbox"]
        entry["segmentation"] = [[x, y, x + w, y, x, y + h]]
    files = write_dataset(tmp_path, document)
    boxes, masks = (read_coco_json(*files, masks=x).annotations for x in (False, True))
    for of_box, of_mask in zip(boxes, masks):
        assert 0.4 * of_box["area"] < of_mask["area"] < 0.6 * of_box["area"]


def test_a_dataset_of_others_without_a_mask():
    entry = annotation([SQUARE], [30.0, 5.0, 50.0, 25.0])
    image = {"file_name": "a", "height": 40, "width": 60, "image_id": 1}
    dicts = [{**image, "annotations": [entry, {**entry, "segmentation": []}]}]
    assert not dict_defects("of others", dicts, 2, check=False).refused
    with pytest.raises(ValueError, match=r"image 1 .*without a mask"):
        dict_defects("of others", dicts, 2, check=False, masks=True).finish("error", how_to_drop="")


def test_packed_masks():
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:6] = True
    for one in (mask, torch.from_numpy(mask)):
        packed = pack_mask(one)
        assert packed["size"] == [5, 7] and isinstance(packed["counts"], str)
        np.testing.assert_array_equal(coco.decode(packed), mask)
