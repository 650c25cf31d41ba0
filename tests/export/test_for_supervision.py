"""Detections in the form of supervision."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from gfocal import _installed
from gfocal.export import Detections, to_supervision
from gfocal.export.detections import BoxArray

BOXES = np.array([[1, 2, 30, 40], [5, 6, 7, 8]], np.float32)
STDS = np.array([[1, 2, 3, 4], [0.5, 0.5, 1, 1]], np.float32)


def instances(stds=True):
    more = {"pred_box_stds": torch.from_numpy(STDS)} if stds else {}
    return Instances(
        (50, 60),
        pred_boxes=Boxes(torch.from_numpy(BOXES)),
        scores=torch.tensor([0.9, 0.3]),
        pred_classes=torch.tensor([1, 0]),
        **more,
    )


def detections():
    return Detections(
        (50, 60),
        pred_boxes=BoxArray(BOXES),
        scores=np.array([0.9, 0.3], np.float32),
        pred_classes=np.array([1, 0]),
        pred_box_stds=STDS,
    )


@pytest.mark.parametrize("make", [instances, detections])
def test_both_kinds(make):
    pytest.importorskip("supervision")
    found = to_supervision(make(), ["cat", "dog"])
    np.testing.assert_array_equal(found.xyxy, BOXES)
    np.testing.assert_allclose(found.confidence, [0.9, 0.3])
    assert found.class_id.tolist() == [1, 0]
    assert list(found.data["class_name"]) == ["dog", "cat"]
    np.testing.assert_array_equal(found.data["bbox_std"], STDS)
    # They follow where supervision selects.
    assert found[found.confidence > 0.5].data["bbox_std"].tolist() == [[1, 2, 3, 4]]


def test_without_stds_names_or_detections():
    pytest.importorskip("supervision")
    assert dict(to_supervision(instances(stds=False)).data) == {}
    assert len(to_supervision(instances()[:0], ["cat", "dog"])) == 0
    with pytest.raises(ValueError, match="class 1; expected one of 1 names"):
        to_supervision(instances(), ["cat"])


def test_masks_of_an_rcnn():
    supervision = pytest.importorskip("supervision")
    found = instances(stds=False)
    found.pred_masks = torch.rand(2, 50, 60) > 0.5
    theirs = supervision.Detections.from_detectron2({"instances": found})
    assert to_supervision(found) == theirs
    np.testing.assert_array_equal(to_supervision(found).mask, found.pred_masks.numpy())


def test_the_package_is_named(monkeypatch):
    monkeypatch.setattr("gfocal.export.for_supervision.is_installed", lambda name: False)
    with pytest.raises(_installed.MissingPackageError, match=r"pip install gfocal\[supervision\]"):
        to_supervision(instances())
