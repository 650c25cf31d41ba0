"""A detector is a table: another one needs data, and no code."""

import pytest
import torch

from gfocal.weights import (
    DetectorTable,
    convert_checkpoint_to_mmdet,
    convert_mmdet_checkpoint,
    convert_mmdet_state_dict,
    fit,
    tables,
    to_mmdet_state_dict,
)
from gfocal.weights.names import rename
from gfocal.weights.tables import GFL

TOY = DetectorTable(
    detector="Toy",
    theirs="bbox_head.logits.",
    ours="head.logits.",
    rows=(
        ("neck.convs.#.conv.*", "backbone.neck#.*"),
        ("bbox_head.logits.*", "head.logits.*"),
        ("bbox_head.fc.*", "head.fc.*"),
    ),
    class_layer="head.logits",
    linear=("head.fc.weight",),
    constants={"bbox_head.two": lambda theirs: torch.tensor(2.0)},
)
THEIRS = {
    "backbone.layer1.0.conv2.weight": torch.rand(2),
    "neck.convs.3.conv.bias": torch.rand(2),
    "bbox_head.logits.weight": torch.rand(6, 2, 1, 1),
    "bbox_head.logits.bias": torch.rand(6),
    "bbox_head.fc.weight": torch.rand(4, 3, 1, 1),
    "bbox_head.two": torch.tensor(2.0),
}


def test_a_second_detector():
    ours = convert_mmdet_state_dict(THEIRS, table=TOY)
    assert {name: tuple(value.shape) for name, value in ours.items()} == {
        "backbone.bottom_up.res2.0.conv2.weight": (2,),
        "backbone.neck3.bias": (2,),
        "head.logits.weight": (6, 2, 1, 1),
        "head.logits.bias": (6,),
        "head.fc.weight": (4, 3),
    }
    back = to_mmdet_state_dict(ours, TOY)
    assert back.keys() == THEIRS.keys()  # and no extra class row
    assert all(torch.equal(back[name], value) for name, value in THEIRS.items())
    with pytest.raises(ValueError, match="6 class rows; expected num_classes 5$"):
        convert_mmdet_state_dict(THEIRS, num_classes=5, table=TOY)


def test_a_table_does_not_take_another_detectors_names():
    with pytest.raises(ValueError, match=r"4 keys are not of a GFL model of mmd.*: neck\.convs\.3"):
        convert_mmdet_state_dict({k: v for k, v in THEIRS.items() if "two" not in k})
    with pytest.raises(ValueError, match="keys are not of a Toy model that the official code has"):
        to_mmdet_state_dict({"head.cls_logits.bias": torch.zeros(1)}, TOY)


def test_the_table_is_told_by_the_names(monkeypatch):
    monkeypatch.setattr(tables, "TABLES", (GFL, TOY))
    ours = convert_mmdet_state_dict(THEIRS)
    assert ours.keys() == convert_mmdet_state_dict(THEIRS, table=TOY).keys()
    assert to_mmdet_state_dict(ours).keys() == THEIRS.keys()
    assert tables.table_of(THEIRS) is tables.table_of(ours) is TOY
    assert TOY.classes_of(ours) == 6
    assert tables.table_of(["neck.convs.3.conv.weight"]) is GFL  # nothing tells: GFL's messages


def test_files_of_a_second_detector(tmp_path, monkeypatch):
    """Checked against the model of a config, the class rows too."""
    expected = convert_mmdet_state_dict(THEIRS, table=TOY)
    monkeypatch.setattr(fit, "expected_state_dict", lambda model_cfg: expected)
    path = tmp_path / "theirs.pth"
    torch.save(THEIRS, path)
    ours, names = convert_mmdet_checkpoint(path, model_cfg={}, table=TOY)
    assert ours.keys() == expected.keys() and names == []
    torch.save({"model": ours}, tmp_path / "ours.pth")
    theirs, _ = convert_checkpoint_to_mmdet(tmp_path / "ours.pth", {}, TOY)
    assert theirs.keys() == THEIRS.keys()
    torch.save({k: v for k, v in THEIRS.items() if k != "bbox_head.fc.weight"}, path)
    with pytest.raises(ValueError, match=r"\n  bbox_head\.fc\.weight: missing in the file$"):
        convert_mmdet_checkpoint(path, model_cfg={}, table=TOY)


def test_other_classes_are_named_by_the_table_that_knows_their_layer(monkeypatch):
    shapes = [("head.logits.weight", (6, 2), (5, 2)), ("head.logits.bias", (6,), (5,))]
    with pytest.raises(ValueError, match=r"not this model's:\n"):
        fit.refuse_incompatible([], shapes, [])
    monkeypatch.setattr(fit, "TABLES", (GFL, TOY))
    with pytest.raises(ValueError, match=r"\(the file has 6 classes, num_classes is 5\):\n"):
        fit.refuse_incompatible([], shapes, [])


def test_the_first_row_that_matches_renames():
    rows = [("a.#.b", "x#"), ("a.*.b", "y.*"), ("a.*", "z.*")]
    names = ["a.3.b", "a.c.b", "a.d", "a.e.f", "xa.3.b"]
    renamed, unmapped = rename(names, rows)
    assert renamed == {"a.3.b": "x3", "a.c.b": "y.c", "a.d": "z.d"}
    assert unmapped == ["a.e.f", "xa.3.b"]
