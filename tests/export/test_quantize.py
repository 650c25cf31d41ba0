"""8-bit files: which nodes stay in float32, and what the file finds."""

import shutil

import numpy as np
import onnx
import pytest
import torch

from gfocal.export.exporting import export_model
from gfocal.export.onnx_format import read_onnx
from gfocal.export.quantize import QUANTIZED, after_the_network, quantize_onnx
from tests.helpers.spread import make_spread_gfl

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    model = make_spread_gfl()
    calibration = [torch.rand(1, 3, 96, 128) * 255 for _ in range(4)]
    export_model(model, folder / "float.onnx")
    rows = export_model(model, folder / "int8.onnx", calibration=calibration)
    return str(folder / "float.onnx"), str(folder / "int8.onnx"), rows


def test_what_comes_after_the_network():
    node = onnx.helper.make_node
    nodes = [
        node("Sub", ["images", "mean"], ["a"], name="normalize"),
        node("Conv", ["a", "w"], ["b"], name="tower"),
        node("MatMul", ["b", "v"], ["c"], name="between"),
        node("Conv", ["c", "w"], ["logits"], name="last"),
        node("Softmax", ["logits"], ["d"], name="softmax"),
        node("MatMul", ["d", "bins"], ["e"], name="expectation"),
        node("Conv", ["b", "w"], ["f"], name="other_branch"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [], [])
    assert {*after_the_network(onnx.helper.make_model(graph))} == {"softmax", "expectation"}


def test_convolutions_are_in_8_bits_and_the_integral_is_not(files):
    plain, quantized = map(onnx.load, files[:2])
    excluded = {*after_the_network(plain)}
    kinds = {node.op_type for node in plain.graph.node if node.name in excluded}
    assert {"Softmax", "Sigmoid", "NonMaxSuppression", "TopK", "MatMul"} <= kinds  # DGQP's MatMul
    made = {out: node for node in quantized.graph.node for out in node.output}
    for node in quantized.graph.node:
        inputs = [made[name].op_type for name in node.input if name in made]
        if node.op_type == "Conv":
            assert inputs[:2] == ["DequantizeLinear", "DequantizeLinear"]
        elif node.name in excluded and node.op_type in (*QUANTIZED, "Softmax"):
            assert "DequantizeLinear" not in [kind for kind in inputs if node.op_type != "Softmax"]
    weights = [x for x in quantized.graph.initializer if x.name.endswith("weight_quantized")]
    convolutions = sum(node.op_type == "Conv" for node in plain.graph.node)
    assert 0 < len(weights) <= convolutions
    assert {x.data_type for x in weights} == {onnx.TensorProto.INT8}


def test_the_file_says_so_and_finds_about_the_same(files):
    plain, quantized, rows = files
    card = read_onnx(quantized).card
    assert card.precision == "int8" and read_onnx(plain).card.precision == "float32"
    assert card.class_names == read_onnx(plain).card.class_names
    assert all(0 < row.score < 0.5 for row in rows)  # not equal, and not another detector


def test_calibration_without_images(files, tmp_path):
    path = tmp_path / "x.onnx"
    shutil.copy(files[0], path)
    with pytest.raises(ValueError, match="no image to calibrate with"):
        quantize_onnx(str(path), iter(()))
    quantize_onnx(str(path), [{"images": np.zeros((1, 3, 64, 64), np.float32)}])
    assert read_onnx(str(path)).card.precision == "int8"
