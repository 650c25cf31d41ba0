"""A calibrated detector in a file: its scores and standard deviations, and what the card says."""

import numpy as np
import pytest
import torch

from gfocal.export import OnnxPredictor, export_model
from gfocal.export.network import TensorNetwork
from gfocal.modeling.uncertainty import Calibration
from tests.helpers.spread import make_spread_gfl

CALIBRATION = Calibration(0.25, (0.0, 0.1, 0.4, 1.0), (0.0, 0.01, 0.6, 0.95))


@torch.no_grad()
def test_an_onnx_file_is_calibrated(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = make_spread_gfl(test_score_thresh=0.05)
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    pixels = torch.from_numpy(image).permute(2, 0, 1).float()
    plain = model([{"image": pixels}])[0]["instances"]
    model.postprocess.calibration = CALIBRATION
    export_model(model, tmp_path / "m.onnx", resize={})
    predictor = OnnxPredictor(tmp_path / "m.onnx")
    # The threshold is of the score before: 0.05 became 0.005.
    assert predictor.card.calibrated and predictor.card.score_thresh == pytest.approx(0.05)
    found = predictor(image)["instances"]
    assert len(found) == len(plain) > 0
    expected = np.interp(plain.scores, CALIBRATION.scores, CALIBRATION.values)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4)
    np.testing.assert_allclose(found.pred_box_stds, 0.25 * plain.pred_box_stds, rtol=1e-4)


@pytest.mark.parametrize("level", ["raw", "decoded"])
def test_other_levels_end_before(level):
    model = make_spread_gfl()
    model.postprocess.calibration = CALIBRATION
    with pytest.raises(ValueError, match=f"a calibrated detector at level '{level}'; expected"):
        TensorNetwork(model, level)
