import json

import numpy as np
import pytest

from gfocal.benchmarks.audit import METHODS, AuditedImage, iou_alone, measure, score_alone
from gfocal.benchmarks.injection import KINDS, inject
from gfocal.cli import benchmark_audit


def image(key=1, annotations=(), found=(), objects=None):
    """annotations: (id, box, class); found: (box, class, score), the best first. Boxes XYXY."""

    def array(rows, index, *shape):
        return np.array([row[index] for row in rows], float).reshape(-1, *shape)

    return AuditedImage(
        key,
        [row[0] for row in annotations],
        array(annotations, 1, 4),
        array(annotations, 2).astype(int),
        array(found, 0, 4),
        array(found, 1).astype(int),
        array(found, 2),
        np.arange(len(found)) if objects is None else np.array(objects),
    )


def mistake(kind, annotation_id, bbox=None):
    return {"kind": kind, "image_id": 1, "annotation_id": annotation_id, "bbox": bbox}


def test_what_counts():
    """Of five annotations two are right, one is a spurious mistake, one a duplicate and one its
    original, which counts for nothing."""
    a = image(
        annotations=[
            (1, [0, 0, 10, 10], 0),
            (2, [20, 0, 30, 10], 0),
            (3, [40, 0, 50, 10], 0),
            (4, [20, 0, 30, 9], 0),
            (5, [60, 0, 70, 10], 0),
        ]
    )
    truth = [mistake("spurious", 3), mistake("duplicate", 4, [20, 0, 10, 9])]
    # Pairs with the right ones: 0.5 above 0.1, below 0.9: half.
    scores = {"spurious": [np.array([0.1, 9, 0.5, 9, 0.9])]}
    row = measure([a], truth, scores)["spurious"]
    assert (row.auroc, row.positives) == (0.5, 1) and row.precision == pytest.approx(1 / 3)
    row = measure([a], truth, {"duplicate": [np.array([0.1, 9, 9, 1, 0.2])]})["duplicate"]
    assert (row.auroc, row.positives) == (1, 1)
    assert measure([a], truth, {}) == {}


def test_what_counts_of_missing():
    """The best object on a dropped box is the mistake; the other one there, and one on a box whose
    side is bad, count for nothing."""
    found = [
        ([0, 0, 10, 10], 0, 0.9),
        ([0, 0, 10, 9], 1, 0.8),
        ([20, 0, 30, 10], 0, 0.7),
        ([40, 0, 50, 10], 0, 0.6),
        ([60, 0, 70, 10], 0, 0.5),
    ]
    truth = [mistake("missing", 7, [0, 0, 10, 10]), mistake("bad_side", 8, [20, 0, 10, 10])]
    row = measure([image(found=found)], truth, {"missing": [np.array([3, 9, 9, 2, 4.0])]})[
        "missing"
    ]
    assert row.positives == 1 and row.auroc == 0.5
    scores = {"missing": [np.array([np.nan, 9, 9, 0, 1])]}  # nan: nothing is said
    assert measure([image(found=found)], truth, scores)["missing"].auroc == 0


def test_precision_among_ties():
    """200 right ones and 50 mistakes, all alike: a fifth. 40 mistakes above them: 40 and 60 of the
    210 others, of which 10 are mistakes."""
    boxes = [(n, [0, 0, 1, 1], n % 2) for n in range(250)]
    truth = [mistake("spurious", n) for n in range(50)]
    score = np.zeros(250)
    row = measure([image(annotations=boxes)], truth, {"spurious": [score]})["spurious"]
    assert row.precision == pytest.approx(0.2) and row.auroc == 0.5
    score[:40] = 1
    row = measure([image(annotations=boxes)], truth, {"spurious": [score]})["spurious"]
    assert row.precision == pytest.approx((40 + 60 * 10 / 210) / 100)


def test_simple_methods():
    a = image(
        annotations=[(1, [0, 0, 10, 10], 0), (2, [0, 0, 10, 5], 0), (3, [50, 50, 60, 60], 1)],
        found=[([0, 0, 10, 10], 1, 0.8), ([0, 0, 10, 10], 0, 0.04), ([50, 50, 60, 55], 1, 0.4)],
    )
    scores = {kind: found[0].tolist() for kind, found in iou_alone([a]).items()}
    assert scores["bad_side"] == scores["spurious"] == pytest.approx([0, 0.5, 0.5])
    assert scores["wrong_class"] == pytest.approx([1, 1, 0.5])
    assert scores["duplicate"] == pytest.approx([0.5, 0.5, 0])
    assert scores["missing"] == pytest.approx([0, 0, 0.5])
    scores = {kind: found[0].tolist() for kind, found in score_alone([a]).items()}
    assert scores["bad_side"] == scores["duplicate"] == pytest.approx([0.2, 0.2, 0.6])
    assert scores["wrong_class"] == pytest.approx([0.96, 0.96, 0.6])
    assert scores["missing"] == pytest.approx([0.8, 0.04, 0.4])
    assert score_alone([image()])["missing"][0].shape == (0,)


def test_object_lab():
    """The same order as its own numbers: its scores are low where a mistake is likely."""
    pytest.importorskip("cleanlab")
    a = image(
        annotations=[(1, [0, 0, 10, 10], 0), (2, [20, 0, 32, 10], 0), (3, [40, 0, 50, 10], 1)],
        found=[
            ([60, 60, 70, 70], 1, 0.99),
            ([20, 0, 30, 10], 0, 0.98),
            ([40, 0, 50, 10], 0, 0.97),
            ([0, 0, 10, 10], 0, 0.96),
        ],
    )
    scores = METHODS["ObjectLab"]([a])
    assert np.nanargmax(scores["missing"][0]) == 0
    assert np.argmax(scores["wrong_class"][0]) == 2
    assert scores["bad_side"][0][1] > scores["bad_side"][0][0]


def test_the_command(tmp_path, capsys):
    """Detections that are the truth: the audit finds all that was put in."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for n in range(60):
        images.append({"id": n, "file_name": f"{n}.png", "width": 300, "height": 300})
        for place in range(4):
            x, y = 150 * (place % 2) + 20, 150 * (place // 2) + 20
            box = [x, y, *(float(v) for v in rng.integers(40, 90, 2))]
            row = {"id": len(annotations), "image_id": n, "bbox": box, "area": 1.0}
            annotations.append({**row, "category_id": int(rng.integers(1, 4)), "iscrowd": 0})
    categories = [{"id": n, "name": f"c{n}"} for n in (1, 2, 3)]
    clean = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "clean.json").write_text(json.dumps(clean))
    words = ["--annotations", f"{tmp_path}/clean.json", "--output", f"{tmp_path}/injected"]
    assert benchmark_audit.main(["inject", *words, "--fraction", "0.25"]) == 0
    assert "60 mistakes in" in capsys.readouterr().out
    expected, _ = inject(clean, 0.25, 0)
    assert json.loads((tmp_path / "injected/instances.json").read_text()) == expected

    rows = [
        {
            "image_id": x["image_id"],
            "category_id": x["category_id"],
            "bbox": x["bbox"],
            "score": 0.9,
            "bbox_std": [1.0] * 4,
        }
        for x in annotations
    ]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    words = ["measure", "--annotations", f"{tmp_path}/injected/instances.json"]
    words += ["--truth", f"{tmp_path}/injected/truth.json", "--predictions", f"{tmp_path}/p.json"]
    assert benchmark_audit.main(words) == 0
    lines = [x.split("|")[1:-1] for x in capsys.readouterr().out.splitlines()]
    table = {line[0].strip(): line[1:] for line in lines}
    assert [cell.split()[0] for cell in table["AUROC, precision@100"]] == list(KINDS)
    for name in ("gfocal audit", "gfocal audit without standard deviations"):
        for cell in table[name]:
            assert cell.split(",")[0].strip() == "1.000", (name, cell)
    assert float(table["score alone"][0].split(",")[0]) < 0.9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inject"], "inject expects --output"),
        (["measure"], "measure expects --truth"),
        (["measure", "--truth", "t"], "measure expects --predictions"),
        (["inject", "--output", "o", "--fraction", "0"], "--fraction is 0.0; expected more than 0"),
    ],
)
def test_options(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        benchmark_audit.main([*words, "--annotations", "a"])
    assert end.value.code == 2 and message in capsys.readouterr().err
