"""`gfocal eval --weights model.onnx`: the numbers of the checkpoint, without a config."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg

from gfocal.cli import evaluate
from gfocal.config import load_config
from gfocal.engine import LazyTrainer, Predictor
from gfocal.engine.exported import ExportedDetector, evaluate_exported
from gfocal.export import OnnxPredictor, export_model
from gfocal.weights import describe
from tests.helpers.spread import make_spread_gfl

pytestmark = pytest.mark.usefixtures("one_thread", "loggers_restored")
ROOT = Path(__file__).parents[2]
CONFIG = """
from detectron2.config import LazyCall as L
from tests.helpers.spread import SumEvaluator, make_spread_gfl
from tests.helpers.toy_config import parts

data, dataloader, train = parts()
model = L(make_spread_gfl)(test_score_thresh=0.05, input_format="RGB")
data["folder"], train["output_dir"] = {folder!r}, {folder!r}
dataloader["test"].mapper.image_format = "RGB"
dataloader["test"].mapper.augmentations[0].short_edge_length = 100
dataloader["test"].mapper.augmentations[0].max_size = 120
dataloader["test"].dataset.num_images = 3
dataloader["evaluator"] = L(SumEvaluator)()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """config.py, weights.pth, and model.onnx that carries the config."""
    folder = tmp_path_factory.mktemp("eval")
    path = folder / "config.py"
    path.write_text(CONFIG.format(folder=str(folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        torch.manual_seed(0)
        model = make_spread_gfl(input_format="RGB")
        torch.save({"model": model.state_dict()}, folder / "weights.pth")
        description = describe(load_config(path), model=model, class_names=["a", "b", "c"])
        export_model(
            model,
            folder / "model.onnx",
            resize={"short_edge": 100, "max_size": 120},
            class_names=["a", "b", "c"],
            description=description.plain(),
        )
    return folder


def metrics(folder: Path, *words: str) -> dict[str, float]:
    (folder / "metrics.json").unlink(missing_ok=True)
    assert evaluate.main([*words, f"train.output_dir={folder}"]) == 0
    return json.loads((folder / "metrics.json").read_text().splitlines()[-1])


def test_the_numbers_of_the_checkpoint(folder):
    config, weights = (
        ["--config-file", f"{folder}/config.py"],
        ["--weights", f"{folder}/weights.pth"],
    )
    expected = metrics(folder, *config, *weights, "--num-gpus", "0")
    exported = ["--weights", f"{folder}/model.onnx"]
    found = metrics(folder, *exported, "--trust", "tests")
    assert expected["bbox/count"] > 30
    for name in ("bbox/count", "bbox/scores", "bbox/corners"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)
    assert metrics(folder, *config, *exported) == found  # its config may be given, too


def test_overrides_of_the_data_are_taken(folder):
    words = ["--weights", f"{folder}/model.onnx", "--trust", "tests"]
    all_three = metrics(folder, *words)
    one = metrics(folder, *words, "dataloader.test.dataset.num_images=1")
    assert 0 < one["bbox/count"] < all_three["bbox/count"]


@pytest.mark.parametrize(
    "words",
    [
        ["model.test_score_thresh=0.3"],
        ["+model={test_score_thresh: 0.3}"],
        ["--fast"],
        ["--resume"],
        ["--num-gpus", "1"],
    ],
)
def test_options_that_an_onnx_file_has_no_use_for(words, capsys):
    with pytest.raises(SystemExit) as error:
        evaluate.parse_args(["--weights", "model.onnx", *words])
    message = f"model.onnx is an ONNX file, which takes no {words[0]}"
    assert error.value.code == 2 and message in capsys.readouterr().err


def test_what_cannot_be_evaluated(folder, tmp_path):
    with pytest.raises(SystemExit, match="no ONNX file '.*missing.onnx'"):
        evaluate.main(["--weights", f"{tmp_path}/missing.onnx"])
    export_model(make_spread_gfl(), tmp_path / "bare.onnx", resize={})
    with pytest.raises(SystemExit, match="bare.onnx carries no config"):
        evaluate.main(["--weights", f"{tmp_path}/bare.onnx"])
    words = ["--weights", f"{folder}/model.onnx", "--trust", "tests"]
    with pytest.raises(SystemExit, match="test-time augmentation, which an ONNX file has not"):
        evaluate.main([*words, "+train.test_augmentation.enabled=true"])
    with pytest.raises(SystemExit, match="image_format is 'BGR'; .*model.onnx takes 'RGB'"):
        evaluate.main([*words, "dataloader.test.mapper.image_format=BGR"])
    with pytest.raises(SystemExit, match="tests"):  # a package that the file may not name
        evaluate.main(["--weights", f"{folder}/model.onnx"])


def test_the_image_format_of_a_yacs_config(folder):
    cfg = get_cfg()
    with pytest.raises(ValueError, match="INPUT.FORMAT is 'BGR'; .*model.onnx takes 'RGB'"):
        evaluate_exported(LazyTrainer, cfg, OnnxPredictor(folder / "model.onnx"))


def test_a_batch_of_images_of_two_sizes(folder):
    exported = ExportedDetector(OnnxPredictor(folder / "model.onnx"))
    model = Predictor(load_config(folder / "config.py"), folder / "weights.pth").model
    batch = [
        {"image": torch.rand(3, 100, 120) * 255, "height": 50, "width": 60},
        {"image": torch.rand(3, 70, 100) * 255, "height": 140, "width": 200},
        {"image": torch.rand(3, 100, 120) * 255},
    ]
    for inputs, output in zip(batch, exported(batch)):
        with torch.no_grad():
            expected = model([inputs])[0]["instances"]
        found = output["instances"]
        assert found.image_size == expected.image_size and len(found) == len(expected) > 3
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=0)
        boxes = (found.pred_boxes.tensor, expected.pred_boxes.tensor)
        torch.testing.assert_close(*boxes, atol=1e-3, rtol=0)
