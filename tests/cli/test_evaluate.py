"""`gfocal eval --reliability`."""

import json

import pytest
import torch

from gfocal.cli import evaluate, train
from gfocal.export import export_model
from tests.helpers.coco_files import valid_document, write_dataset
from tests.helpers.spread import make_spread_gfl
from tests.helpers.trainings import ROOT, records

pytestmark = pytest.mark.usefixtures("one_thread", "loggers_restored")
CONFIG = """
from detectron2.config import LazyCall as L
from gfocal import model_zoo
from gfocal.data import register_coco_json
from tests.helpers.spread import make_spread_gfl

cfg = model_zoo.get_config("COCO-Detection/gflv2_R_50_FPN_1x.py")
dataloader, train = cfg.dataloader, cfg.train
data = dict(check=True)
model = L(make_spread_gfl)(test_score_thresh=0.01, input_format="RGB")
dataloader.test.dataset.names = L(register_coco_json)(
    name="mine", json_file={json_file!r}, image_root={image_root!r}
)
resize = dataloader.test.mapper.augmentations[0]
resize.short_edge_length, resize.max_size = 64, 96
dataloader.test.num_workers = 0
train.update(output_dir={folder!r}, device="cpu", init_checkpoint="")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """config.py and weights.pth."""
    monkeypatch.syspath_prepend(str(ROOT))
    json_file, image_root = write_dataset(tmp_path, valid_document())
    text = CONFIG.format(json_file=json_file, image_root=image_root, folder=str(tmp_path / "out"))
    (tmp_path / "config.py").write_text(text)
    model = make_spread_gfl(input_format="RGB", test_score_thresh=0.01)
    torch.save({"model": model.state_dict()}, tmp_path / "weights.pth")
    return tmp_path


def test_the_flag_is_the_key(folder):
    words = ["--config-file", f"{folder}/config.py", "--weights", f"{folder}/weights.pth"]
    assert evaluate.main(words) == 0
    assert not (folder / "out/inference/reliability.json").exists()
    assert evaluate.main([*words, "--reliability"]) == 0
    assert evaluate.main([*words, "train.reliability=true"]) == 0
    without, flag, key = records(folder / "out")
    assert not any(x.startswith("reliability/") for x in without)
    assert "reliability/coverage80_bins" in flag
    assert json.dumps(flag) == json.dumps(key)  # nan is nan
    report = json.loads((folder / "out/inference/reliability.json").read_text())
    assert report["metrics"]["LaECE"] == flag["reliability/LaECE"]
    assert (folder / "out/inference/reliability.png").is_file()


def test_an_onnx_file_has_standard_deviations_and_no_distributions(folder):
    model = make_spread_gfl(input_format="RGB", test_score_thresh=0.01)
    model.load_state_dict(torch.load(folder / "weights.pth")["model"])
    resize = {"short_edge": 64, "max_size": 96}
    export_model(
        model, folder / "model.onnx", class_names=["a", "b", "c"], resize=resize, stds=True
    )
    config = ["--config-file", f"{folder}/config.py"]
    assert evaluate.main([*config, "--weights", f"{folder}/weights.pth", "--reliability"]) == 0
    assert evaluate.main([*config, "--weights", f"{folder}/model.onnx", "--reliability"]) == 0
    expected, found = records(folder / "out")
    assert "reliability/nll_bins" not in found
    for name in ("detections", "LaECE", "std_spearman", "nll_laplace"):
        key = f"reliability/{name}"
        assert found[key] == pytest.approx(expected[key], rel=1e-3, nan_ok=True)


def test_it_is_for_evaluations():
    with pytest.raises(SystemExit) as end:
        train.parse_args(["--config-file", "x", "--reliability"])
    assert end.value.code == 2
