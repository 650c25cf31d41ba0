"""From a json and detections to findings, audit.json, cleaned.json and the cards of the page."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gfocal.data.sides import pack_sides
from gfocal.inspect.audit import KINDS, Audit, accepted, cleaned, page_items, read_labels
from gfocal.inspect.audit.folds import fold_of_images, write_folds
from gfocal.inspect.page import write_page

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog", "supercategory": "animal"}]
IMAGES = [{"id": n, "file_name": f"{n}.png", "width": 100, "height": 80} for n in (1, 2)]
BINS = [0.0, 0.5, 1.0]


def annotation(key, box, category=7, image=1, **more):
    return {"id": key, "image_id": image, "category_id": category, "bbox": box, **more}


# One mistake of each kind in image 1; image 2 is right, and has a crowd.
ANNOTATIONS = [
    annotation(10, [10, 10, 20, 20], area=400, iscrowd=0),
    annotation(11, [10, 10, 20, 19]),  # duplicate of 10
    annotation(12, [40, 10, 20, 20], category=3),  # a cat
    annotation(13, [58, 40, 32, 20], area=640, segmentation=[[1, 2, 3, 4]], note="kept"),
    annotation(14, [0, 60, 10, 10]),  # nothing there
    annotation(20, [10, 10, 20, 20], image=2, category=3),
    annotation(21, [50, 10, 50, 60], image=2, iscrowd=1),
]
DOCUMENT = {
    "info": {"year": 2000},
    "images": IMAGES,
    "annotations": ANNOTATIONS,
    "categories": CATEGORIES,
    "extra": [1, 2],
}


def detection(box, category=7, score=0.9, std=1.0):
    x, y, w, h = box
    edges = np.array([[a - 2.0, a, a + 2.0] for a in (x, y, x + w, y + h)])
    (sides,) = pack_sides(np.array([[[0.2, 1, 0.2]] * 4]), edges[None])
    found = {"category_id": category, "bbox": box, "score": score, "sides": sides}
    return {**found, "bbox_std": [std] * 4}


DETECTIONS = {
    1: [
        detection([10, 10, 20, 20]),
        detection([40, 10, 20, 20]),
        detection([70, 40, 20, 20]),  # 13, whose left side lies 12 pixels out
        detection([70, 5, 20, 20], category=3),  # missing
    ],
    2: [detection([10, 10, 20, 20], category=3), detection([60, 20, 20, 20])],
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(DOCUMENT))
    return str(path)


def audited(path, detections=None):
    audit = Audit(read_labels(path))
    for image_id, found in (detections or DETECTIONS).items():
        audit.add(image_id, {"detections": found, "bins": BINS})
    return audit


def by_kind(findings):
    return {finding.kind: finding for finding in findings}


def test_a_finding_of_each_kind(path):
    findings = audited(path).findings()
    assert sorted(x.kind for x in findings) == sorted(KINDS)
    assert [x.id for x in findings] == [1, 2, 3, 4, 5]
    scores = [x.score for x in findings]
    assert scores == sorted(scores, reverse=True)
    found = by_kind(findings)
    ids = {kind: x.annotation_id for kind, x in found.items()}
    expected = {"missing": None, "spurious": 14, "wrong_class": 12, "bad_side": 13, "duplicate": 11}
    assert ids == expected
    assert {x.file_name for x in findings} == {"1.png"}

    missing = found["missing"]
    assert missing.suggested_bbox == [70, 5, 20, 20] and missing.bbox is None
    assert (missing.category, missing.suggested_category) == (None, "dog")
    assert missing.text == "dog is detected with score 0.90, and no annotation touches it."
    assert found["spurious"].text == "No detection supports this cat: there is none near it."
    wrong = found["wrong_class"]
    assert (wrong.category, wrong.suggested_category) == ("dog", "cat")
    assert wrong.text == "Annotated as dog, detected as cat with score 0.90 (dog there: 0.00)."
    side = found["bad_side"]
    assert side.sides == ["left"] and side.suggested_bbox == [70, 40, 20, 20]
    assert side.bbox == [58, 40, 32, 20]
    # std 1 and 1.5 / 30 of 20 pixels: 12 / sqrt(2) = 8.5
    assert side.text == "The left side lies 12 px too far out: 8 times what is uncertain."
    assert found["duplicate"].other_annotation_id == 10
    assert "annotation 10" in found["duplicate"].text


def test_a_lower_limit_gives_more(path):
    audit = audited(path)
    assert len(audit.findings(0.0)) > len(audit.findings()) > len(audit.findings(0.9))


def test_without_standard_deviations(path):
    bare = {
        image: [{k: v for k, v in x.items() if k not in ("bbox_std", "sides")} for x in found]
        for image, found in DETECTIONS.items()
    }
    audit = audited(path, bare)
    side = by_kind(audit.findings())["bad_side"]
    assert side.text == "The left side lies 12 px too far out, judged by the detection."
    report = audit.report(audit.findings(), {})
    assert report["settings"]["bad_side_measured_in"] == "shares of the box's width and height"
    report = audited(path).report([], {})
    assert report["settings"]["bad_side_measured_in"] == "standard deviations"


def test_report(path):
    audit = audited(path)
    report = audit.report(audit.findings(), {"threshold": 0.5})
    assert json.loads(json.dumps(report)) == report
    assert report["settings"]["threshold"] == 0.5 and report["settings"]["num_images"] == 2
    assert report["settings"]["num_annotations"] == 6  # the crowd is none
    # Too few to tell what is usual.
    assert report["settings"]["std_scale"] == 1 and report["settings"]["usual_share"] == 0.03333
    assert report["counts"] == dict.fromkeys(KINDS, 1)
    assert all(
        {"id", "kind", "score", "text", "suggested_bbox"} <= x.keys() for x in report["findings"]
    )


def test_the_cleaned_copy(path):
    audit = audited(path)
    before = copy.deepcopy(audit.labels.document)
    result = cleaned(before, audit.report(audit.findings(), {})["findings"])
    assert before == DOCUMENT
    for key in ("info", "images", "categories", "extra"):
        assert result[key] == DOCUMENT[key]
    rows = {x["id"]: x for x in result["annotations"]}
    assert rows.keys() == {10, 12, 13, 20, 21, 22}
    assert rows[10] == ANNOTATIONS[0] and rows[20] == ANNOTATIONS[5] and rows[21] == ANNOTATIONS[6]
    assert rows[12] == {**ANNOTATIONS[2], "category_id": 7}
    assert rows[13] == {**ANNOTATIONS[3], "bbox": [70, 40, 20, 20], "area": 400}
    new = {"image_id": 1, "category_id": 3, "bbox": [70, 5, 20, 20], "area": 400, "iscrowd": 0}
    assert rows[22] == {"id": 22, **new}
    assert cleaned(DOCUMENT, []) == DOCUMENT


def test_the_area_of_a_mask_stays(path):
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][3]["area"] = 333.0
    finding = by_kind(audited(path).findings())["bad_side"]
    report = audited(path).report([finding], {})
    assert cleaned(document, report["findings"])["annotations"][3]["area"] == 333.0


def test_ids_that_are_texts(path):
    document = copy.deepcopy(DOCUMENT)
    for x in document["annotations"]:
        x["id"] = "added1" if x["id"] == 10 else str(x["id"])
    missing = by_kind(audited(path).findings())["missing"]
    report = audited(path).report([missing], {})
    assert cleaned(document, report["findings"])["annotations"][-1]["id"] == "added2"


def test_findings_of_another_dataset(path):
    report = audited(path).report(audited(path).findings(), {})
    with pytest.raises(ValueError, match="finding .: there is no annotation 1"):
        cleaned({**DOCUMENT, "annotations": []}, report["findings"])
    with pytest.raises(ValueError, match="finding .: there is no category '...'"):
        cleaned({**DOCUMENT, "categories": []}, report["findings"])


def test_decisions(path):
    audit = audited(path)
    report = audit.report(audit.findings(), {})
    words = ["accept", "reject", "skip", "accept", "reject"]
    rows = [{"id": n, "decision": word} for n, word in enumerate(words, 1)]
    chosen = accepted(report, {"page": "x", "decisions": rows})
    assert [x["id"] for x in chosen] == [1, 4]
    assert accepted(report, {"decisions": []}) == []
    for wrong in ([], {"decisions": 3}, {"decisions": [{"id": 1}]}, None):
        with pytest.raises(ValueError, match="which audit.html downloads"):
            accepted(report, wrong)
    with pytest.raises(ValueError, match="decision 'yes'; expected one of accept, reject, skip"):
        accepted(report, {"decisions": [{"id": 1, "decision": "yes"}]})
    with pytest.raises(ValueError, match="no finding 9: the decisions are of another audit"):
        accepted(report, {"decisions": [{"id": 9, "decision": "accept"}]})


def test_cards(path, tmp_path):
    for image in IMAGES:
        pixels = np.zeros((80, 100, 3), np.uint8)
        pixels[:, :, 0] = np.arange(100)
        Image.fromarray(pixels).save(tmp_path / image["file_name"])
    audit = audited(path)
    findings = audit.findings()
    items = list(page_items(audit, findings, lambda key: f"{tmp_path}/{key}.png"))
    assert [x.finding.id for x in items] == [1, 2, 3, 4, 5]
    by_name = {x.finding.kind: x for x in items}
    roles = {kind: [box.role for box in x.boxes] for kind, x in by_name.items()}
    assert roles == {
        "missing": ["suggestion", "prediction"],
        "spurious": ["annotation"],
        "wrong_class": ["annotation", "suggestion", "prediction"],
        "bad_side": ["annotation", "suggestion", "prediction"],
        "duplicate": ["annotation", "annotation", "prediction"],
    }
    side = by_name["bad_side"]
    assert side.finding.sides == ("left",) and side.title == "1.png"
    np.testing.assert_array_equal(side.boxes[0].bbox, [58, 40, 90, 60])
    np.testing.assert_array_equal(side.boxes[1].bbox, [70, 40, 90, 60])
    np.testing.assert_allclose(side.boxes[2].bin_edges[0], [68, 70, 72])
    assert by_name["wrong_class"].boxes[1].class_name == "cat"
    # Margin 0.6 of 32 pixels: from x 38, whose red is 38, to the border.
    assert side.origin == (38, 20) and side.image[0, 0, 0] == 38
    assert side.image.shape[1] == round(62 * side.scale)
    assert write_page(tmp_path / "a.html", items, title="t") == 5


@pytest.mark.parametrize("box", [[0, 0, 100, 80], [99, 79, 1, 1], [500, 500, 10, 10], [5, 5, 0, 0]])
def test_a_card_of_an_odd_box(tmp_path, box):
    """As large as the image, in its corner, outside, without an area."""
    document = {**DOCUMENT, "annotations": [annotation(1, box)]}
    (tmp_path / "a.json").write_text(json.dumps(document))
    Image.new("L", (100, 80)).save(tmp_path / "1.png")
    audit = audited(str(tmp_path / "a.json"), {1: []})
    findings = audit.findings()
    assert [x.kind for x in findings] == ["spurious"]
    items = page_items(audit, findings, lambda key: f"{tmp_path}/1.png")
    assert write_page(tmp_path / "a.html", items, title="t") == 1


def test_nothing_annotated_or_detected(tmp_path):
    document = {**DOCUMENT, "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps(document))
    audit = audited(str(tmp_path / "a.json"), {1: [], 2: []})
    assert audit.findings() == [] and len(audit) == 2
    assert audit.report([], {})["counts"] == dict.fromkeys(KINDS, 0)
    audit.add(2, {"detections": DETECTIONS[1]})
    assert {x.kind for x in audit.findings()} == {"missing"} and len(audit.findings()) == 4


def broken(**change):
    """The document with an annotation changed."""
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][2].update(change)
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (broken(id=None), "annotation 2 of the list has the id None; expected a number of its own"),
        (broken(id=10), "annotation 2 of the list has the id 10, as another one has"),
        (broken(image_id=5), r"\(id 12\) has the image_id 5, and no image has it"),
        (broken(category_id=[1]), r"\(id 12\) has the category_id \[1\], and no category has it"),
        (broken(bbox=[1, 2, 3]), r"\(id 12\) has the bbox \[1, 2, 3\]; expected x, y, width"),
        (broken(bbox=[1, 2, -3, 4]), r"has the bbox \[1, 2, -3, 4\]"),
        (broken(bbox=[1, 2, float("nan"), 4]), "has the bbox"),
        ({**DOCUMENT, "annotations": None}, 'has no list "annotations"'),
        ([1], 'has no list "images"'),
    ],
)
def test_annotations_that_nothing_can_be_said_of(tmp_path, document, message):
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        read_labels(str(tmp_path / "a.json"))


def test_no_json(tmp_path):
    with pytest.raises(FileNotFoundError, match="no json"):
        read_labels(str(tmp_path / "a.json"))
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="is no json"):
        read_labels(str(tmp_path / "a.json"))


def test_folds(path, tmp_path):
    """Each image is in one fold; the seed is fixed."""
    ids = list(range(100, 110))
    found = fold_of_images(ids[::-1], 3)
    order = np.random.default_rng(0).permutation(10)
    assert [found[100 + place] for place in order] == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    folds = write_folds(read_labels(path), str(tmp_path / "out"), 2)
    assert sorted(len(fold.image_ids) for fold in folds) == [1, 1]
    assert folds[0].image_ids | folds[1].image_ids == {1, 2}
    for fold in folds:
        train, held = (json.loads(Path(x).read_text()) for x in fold[1:3])
        assert {x["id"] for x in held["images"]} == fold.image_ids
        assert {x["image_id"] for x in held["annotations"]} == fold.image_ids
        assert {x["id"] for x in train["images"]} == {1, 2} - fold.image_ids
        assert train["categories"] == CATEGORIES and train["extra"] == [1, 2]
        assert len(train["annotations"]) + len(held["annotations"]) == len(ANNOTATIONS)
    for count in (1, 3):
        with pytest.raises(ValueError, match=f"{count} folds of 2 images; expected 2 or more"):
            fold_of_images([1, 2], count)
