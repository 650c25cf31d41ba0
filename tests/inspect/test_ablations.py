"""The ablation tables: rows and the page that lists them. (How they train: tests/cli.)"""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from gfocal import model_zoo
from gfocal.inspect import ablations


def test_the_index_is_current():
    folder = Path(model_zoo.get_config_file("ablations/atss.py")).parent
    assert (folder / "README.md").read_text() == ablations.index() + "\n"


ALL_ROWS = dict.fromkeys(row for table in ablations.TABLES for row in ablations.rows(table))
SMALL_ROWS = [row for row in ALL_ROWS if row.startswith("ablations/distillation/")]


def flat(node, where=""):
    """{dotted name: value} of a config, as it is written."""
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node)
    if not isinstance(node, dict):
        return {where: node}
    return {name: x for key in node for name, x in flat(node[key], f"{where}.{key}").items()}


def changes(model, base):
    """{dotted name: (value, value in the base)} where they differ."""
    a, b = flat(model), flat(base)
    return {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)}


@pytest.mark.parametrize("row", [row for row in ALL_ROWS if row not in SMALL_ROWS])
def test_a_row_on_shapes_differs_from_the_small_detector_as_from_its_own(row, tmp_path):
    base, small = map(model_zoo.get_config, ablations.small_of(row))
    expected = changes(model_zoo.get_config(row).model, base.model)
    cfg = ablations.make_config(row, "shapes", 5, 1, tmp_path)
    assert changes(cfg.model, small.model) == expected
    assert cfg.model.num_classes == 6 and cfg.train.max_iter == 5
    for part in ("dataloader", "optimizer", "lr_multiplier"):
        assert not changes(cfg[part], small[part])


@pytest.mark.parametrize("row", SMALL_ROWS)
def test_a_row_with_a_teacher_is_the_small_detector(row, tmp_path):
    """Its data, schedule and student are those of the baseline; only the losses are more."""
    cfg = ablations.make_config(row, "shapes", 5, 1, tmp_path)
    baseline = ablations.make_config("ablations/gflv2.py", "shapes", 5, 1, tmp_path)
    for part in ("dataloader", "optimizer", "lr_multiplier"):
        assert not changes(cfg[part], baseline[part])
    found = changes(cfg.model, baseline.model)
    assert found and all(
        key == "._target_" or key.startswith((".teacher", ".criterion")) for key in found
    )
    assert set(changes(cfg.train, baseline.train)) <= {".ema_decay"}
    with pytest.raises(ValueError, match="expected --dataset shapes"):
        ablations.make_config(row, "coco", 5, 1, tmp_path)


def test_tables_of_no_paper_share_the_baseline():
    """Its run lies in one folder, so it is trained once."""
    tables = [table for table in ablations.TABLES if not ablations.is_of_a_paper(table)]
    assert len(tables) == 5
    rows = {ablations.rows(table)[0] for table in tables}
    assert rows == {"ablations/gflv2.py"}
    folders = [ablations.run_folder(row, "shapes", 600, 0) for row in ALL_ROWS]
    assert len(set(folders)) == len(folders)
    assert str(ablations.run_folder("ablations/gflv2.py", "shapes", 600, 2)) == (
        "all_shapes_600/gflv2/seed2"
    )
    row = "ablations/table3/dfl.py"  # where earlier versions put it
    assert str(ablations.run_folder(row, "coco", 90000, 1)) == "3_coco_90000/dfl/seed1"


def test_rows_of_table_1b():
    """Each two differ by the loss of the classes alone."""
    pairs = {
        "fovea": ("focal", "qfl", {".criterion.cls_loss"}),
        "retinanet": ("R_50_FPN_1x_focal", "R_50_FPN_1x_qfl", {
            "._target_", ".focal_loss_alpha", ".focal_loss_gamma", ".qfl_beta"}),
        "ssd512": ("softmax", "qfl", {".cls_loss"}),
    }  # fmt: skip
    for detector, (*names, parts) in pairs.items():
        rows = [f"ablations/table1b/{detector}_{name}.py" for name in names]
        one, other = map(model_zoo.get_config, rows)
        found = changes(other.model, one.model)
        assert found and all(key.startswith(tuple(parts)) for key in found), detector
        for part in ("dataloader", "optimizer", "lr_multiplier", "train"):
            assert not changes(other[part], one[part]), detector
        one, other = (ablations.make_config(row, "shapes", None, 0, Path()) for row in rows)
        assert changes(other.model, one.model) == found
        assert not changes(other.train, one.train) and one.train.max_iter == 1200


def config(**values):
    return OmegaConf.create(values, flags={"allow_objects": True})


def test_what_is_transplanted():
    """By hand: b is changed, c is removed, e is added and f has another type. What the small model
    changed stays: a, d and the number of layers."""
    base = config(a=1, b=2, c=3, d=[1, 2], f=4, part=dict(_target_=flat, width=256, layers=4))
    row = config(a=1, b=5, d=[1, 2], e="${b}", f={"x": 1}, part=dict(_target_=changes, layers=4))
    small = config(a=9, b=2, c=3, d=[1], f=4, part=dict(_target_=flat, width=256, layers=1))
    result = ablations.transplanted(row, base, small)
    assert OmegaConf.to_container(result) == {
        "a": 9, "b": 5, "d": [1], "e": "${b}", "f": {"x": 1},
        "part": {"_target_": changes, "layers": 1},
    }  # fmt: skip
    assert result.e == 5
    assert ablations.transplanted(base, base, small) == small
    assert ablations.transplanted(small, base, small) == small


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(a=2), r"model.a: the row has 2 and the small model 9, in place of 1"),
        (dict(), r"model.a: the row has nothing and the small model 9"),
    ],
)
def test_what_both_change_is_refused(values, message):
    """For the small model would not be the row's then."""
    with pytest.raises(ValueError, match=message):
        ablations.transplanted(config(**values), config(a=1), config(a=9))
