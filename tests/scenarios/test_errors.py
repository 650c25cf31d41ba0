"""docs/errors.md: each error is provoked, and its message is found on the page."""

import logging
import math
import re
from pathlib import Path

import pytest
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances

from gfocal import model_zoo
from gfocal.data import coco_evaluator, register_coco_json
from gfocal.engine import LazyTrainer, load_config
from gfocal.weights import GFLCheckpointer
from tests.helpers.coco_files import valid_document, write_dataset
from tests.helpers.tiny import make_gfl, make_input

pytestmark = pytest.mark.usefixtures("one_thread")
PAGE = " ".join((Path(__file__).parents[2] / "docs/errors.md").read_text().split())


def on_the_page(phrase: str) -> str:
    """A pattern for a message that the page shows."""
    assert phrase in PAGE
    return re.escape(phrase)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The quick start, with few images."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))

    def load(*overrides: str):
        small = [
            f"train.output_dir={tmp_path}/run",
            "train.device=cpu",
            "train.max_iter=20",
            "dataloader.train.total_batch_size=2",
            "dataloader.train.num_workers=0",
            "dataloader.test.num_workers=0",
            "dataloader.train.dataset.names.num_images=6",
            "dataloader.test.dataset.names.num_images=3",
        ]
        path = model_zoo.get_config_file("quick_start/shapes_gflv2.py")
        return load_config(path, [*small, *overrides])

    return load


def evaluate_truth(name: str, shift: int = 0) -> dict[str, float]:
    """The results of an evaluation where the true boxes are found, with other classes."""
    evaluator = coco_evaluator(name)
    evaluator.reset()
    for image in DatasetCatalog.get(name):
        boxes = torch.tensor([x["bbox"] for x in image["annotations"]])
        boxes = boxes.reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        classes = [(x["category_id"] + shift) % 3 for x in image["annotations"]]
        found = Instances((image["height"], image["width"]))
        found.pred_boxes = Boxes(boxes)
        found.pred_classes = torch.tensor(classes)
        found.scores = torch.full((len(boxes),), 0.9)
        evaluator.process([image], [{"instances": found}])
    return evaluator.evaluate()["bbox"]


def test_ap_0_after_a_jump_of_the_loss(config):
    highest = {}
    for rate in (0.5, 0.002):
        trainer = LazyTrainer(config(f"optimizer.lr={rate}"))
        results = trainer.train()
        highest[rate] = max(loss for loss, _ in trainer.storage.history("total_loss").values())
        if rate == 0.5:
            assert not results["bbox"]["AP"] > 0  # 0, or nan where nothing is found at all
    assert highest[0.5] > 100  # "in the hundreds"
    assert highest[0.002] < 10


def test_ap_0_by_another_order_of_classes(tmp_path):
    document = valid_document()
    json_file, images = write_dataset(tmp_path, document)
    register_coco_json("errors_val", json_file=json_file, image_root=images)
    assert evaluate_truth("errors_val")["AP"] == pytest.approx(100)
    assert evaluate_truth("errors_val", shift=1)["AP"] == 0

    names = [x["name"] for x in document["categories"]]
    for record, name in zip(document["categories"], names[1:] + names[:1]):
        record["name"] = name
    other, _ = write_dataset(tmp_path, document, "other")
    with pytest.raises(ValueError, match=on_the_page("must have the same categories")):
        register_coco_json(
            "errors_other", json_file=other, image_root=images, same_categories_as=json_file
        )


def test_ap_nan_without_detections(config, caplog, tmp_path):
    cfg = config()
    model = LazyTrainer.build_model(cfg)
    with caplog.at_level(logging.WARNING):
        results = LazyTrainer.test(cfg, model)
    assert math.isnan(results["bbox"]["AP"])
    assert re.search(on_the_page("No predictions from the model!"), caplog.text)
    assert model.test_score_thresh == 0.05
    assert model.head.cls_logits.bias.sigmoid().mean().item() == pytest.approx(0.01)
    with pytest.raises(ValueError, match="no weights to evaluate"):
        LazyTrainer.evaluate(cfg)
    torch.save({"model": {"features.0.weight": torch.zeros(1)}}, tmp_path / "vgg.pth")
    with pytest.raises(ValueError, match=on_the_page("none of the weights fits the model")):
        GFLCheckpointer(model).load(f"{tmp_path}/vgg.pth")


def test_ap_minus_1_without_objects(tmp_path, capsys):
    json_file, images = write_dataset(tmp_path, valid_document())  # all boxes are small
    register_coco_json("errors_small", json_file=json_file, image_root=images)
    results = evaluate_truth("errors_small")
    assert results["APs"] == pytest.approx(100)
    assert math.isnan(results["APl"])
    (row,) = [x for x in capsys.readouterr().out.splitlines() if "(AP)" in x and "large" in x]
    assert row.endswith(re.findall(r"`(-1.000)`", PAGE)[0])


def test_nan(config):
    with pytest.raises(FloatingPointError, match=on_the_page("Loss became infinite or NaN")):
        LazyTrainer(config("optimizer.lr=1e6")).train()


@pytest.mark.parametrize("box", [[10.0, 10, 10, 20], [10.0, 10, math.nan, 20]])
def test_a_degenerate_box_names_the_image(box):
    image = make_input(64, 64, [box], file_name="images/42.jpg")
    with pytest.raises(
        ValueError, match=r"\(images/42.jpg\) " + on_the_page("has a degenerate box")
    ):
        make_gfl()([image])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_out_of_memory():
    torch.cuda.set_per_process_memory_fraction(1e-3)
    try:
        with pytest.raises(torch.OutOfMemoryError, match=on_the_page("CUDA out of memory")):
            make_gfl().cuda()([make_input(8192, 8192, [[3.0, 2, 63, 58]]) for _ in range(16)])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_cpu_out_of_memory():
    image = make_input(64, 64, [[3.0, 2, 63, 58]])
    image["image"] = torch.zeros(1, dtype=torch.uint8).expand(3, 10**7, 10**7)
    with pytest.raises(RuntimeError, match=on_the_page("can't allocate memory")):
        make_gfl()([image])


def test_num_classes_of_the_json(tmp_path):
    json_file, images = write_dataset(tmp_path, valid_document())
    with pytest.raises(ValueError) as caught:
        register_coco_json("errors", json_file=json_file, image_root=images, num_classes=80)
    message = str(caught.value).replace(json_file, "train.json")
    assert re.match(on_the_page("num_classes is 80, but train.json has 3 categories"), message)


def test_num_classes_of_the_boxes():
    image = make_input(64, 64, [[3.0, 2, 63, 58]], classes=[3])
    with pytest.raises(ValueError, match=on_the_page("has class 3; expected 0..2")):
        make_gfl(num_classes=3)([image])


def test_num_classes_of_the_weights(config, tmp_path):
    cfg = config("model.head.conv_dims=[256]", "model.num_classes=80")
    torch.save({"model": LazyTrainer.build_model(cfg).state_dict()}, tmp_path / "80.pth")
    cfg = config("model.head.conv_dims=[256]", "model.num_classes=3")
    cfg.train.init_checkpoint = f"{tmp_path}/80.pth"
    shapes = on_the_page("(80, 256, 3, 3) in the file, (3, 256, 3, 3) in the model")
    classes = on_the_page("the file has 80 classes, num_classes is 3")
    with pytest.raises(ValueError, match=rf"80\.pth: .*{classes}(?s:.*){shapes}"):
        LazyTrainer.evaluate(cfg)
    model = LazyTrainer.build_model(cfg)
    before = model.head.cls_logits.weight.clone()
    GFLCheckpointer(model).load(f"{tmp_path}/80.pth")
    assert torch.equal(model.head.cls_logits.weight, before)
    weights = torch.load(tmp_path / "80.pth")["model"]
    assert torch.equal(model.head.box_logits.weight, weights["head.box_logits.weight"])


def test_a_worker_names_the_image(config):
    cfg = config("dataloader.train.num_workers=1")
    loader = instantiate(cfg.dataloader.train)
    path = Path(loader.dataset[0]["file_name"])
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=rf"image {loader.dataset[0]['image_id']} \({path}\): "):
        for _, _ in zip(range(20), loader):
            pass
    assert "`image 42 (images/42.jpg): ...`" in PAGE


def test_an_unknown_key(config):
    with pytest.raises(ValueError) as caught:
        config("train.max_itr=5")
    first, last = "unknown key 'train.max_itr'", "did you mean train.max_iter?"
    assert str(caught.value).startswith(first)
    assert last in str(caught.value)
    assert f"{first} ...; {last}" in PAGE
