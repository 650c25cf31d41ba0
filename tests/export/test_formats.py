"""Files of every format, run on images that were not traced."""

import functools
import itertools
import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import Conv2d
from torch import nn

from gfocal.backbones.deformable import deformable_twin
from gfocal.detectors import GFL
from gfocal.export import OnnxPredictor
from gfocal.export.card import KEY, ModelCard
from gfocal.export.exporting import ParityError, export_model
from gfocal.export.formats import FORMATS
from gfocal.export.parity import LIMITS, check_images
from gfocal.modeling.criterion import GFLCriterion
from gfocal.modeling.quality import NoQuality, QualityBranch
from gfocal.modeling.recipes import BOX, QUALITY, pick
from gfocal.modeling.suppression import HardNMS
from gfocal.modeling.terms import GIoULoss, QualityFocalLoss
from tests.helpers.spread import make_spread_gfl
from tests.helpers.tiny import TinyBackbone, make_head

pytestmark = pytest.mark.usefixtures("one_thread")
by_format = pytest.mark.parametrize("format", FORMATS)
BOXES_ONLY = GFLCriterion(cls_loss=QualityFocalLoss(), box_loss=GIoULoss())


def path_of(folder, format):
    return str(folder / f"model{FORMATS[format].suffix}")


@pytest.fixture(scope="module")
def default_file(tmp_path_factory):
    """Called with a format: a file of the default level. It is written once."""
    folder = tmp_path_factory.mktemp("files")

    @functools.cache
    def file(format):
        path = path_of(folder, format)
        torch.manual_seed(0)
        export_model(
            make_spread_gfl(),
            path,
            format=format,
            stds=True,
            class_names=["a", "b", "c"],
            category_ids=[3, 1, 2],
            resize={"short_edge": 192, "max_size": 333},
        )
        return path

    return file


def passes(rows, precision="float32"):
    return all(row.passes(LIMITS[precision]) for row in rows)


# Every structure that recipes.py can build. (Other entries differ in losses only.)


def predictor_of(name):
    part = pick(QUALITY, name, "quality")["quality_predictor"]
    if part["_target_"] in (QualityBranch, "gfocal.modeling.quality.QualityBranch"):
        return QualityBranch(8)  # its in_channels is an interpolation of a whole config
    return instantiate(part)


def structures():
    """{(representation, predictor): names of the recipes}, and the pairs that no head can have."""
    found, impossible = {}, []
    for box, quality in itertools.product(BOX, QUALITY):
        representation = instantiate(pick(BOX, box, "box")["box_representation"])
        predictor = predictor_of(quality)
        try:
            make_head(3, predictor, representation)
        except ValueError:
            impossible.append((box, quality))
            continue
        key = (type(representation).__name__, type(predictor).__name__)
        found.setdefault(key, []).append((box, quality))
    return found, impossible


STRUCTURES, IMPOSSIBLE = structures()


def test_the_structures_are_all():
    count = sum(map(len, STRUCTURES.values())) + len(IMPOSSIBLE)
    assert count == len(BOX) * len(QUALITY) and len(STRUCTURES) == 9
    # DGQP reads four probabilities; a Dirac and a logarithm have one channel and a Gaussian two.
    assert {box for box, _ in IMPOSSIBLE} == {"dirac", "gaussian", "log"}
    assert {quality for _, quality in IMPOSSIBLE} == {"dgqp", "dgqp_branch"}


@pytest.mark.parametrize("structure", STRUCTURES, ids="-".join)
def test_every_recipe(structure, tmp_path):
    box, quality = STRUCTURES[structure][0]
    representation = instantiate(pick(BOX, box, "box")["box_representation"])
    model = make_spread_gfl(
        head=make_head(3, predictor_of(quality), representation), criterion=BOXES_ONLY
    )
    stds = hasattr(representation, "std")
    # What comes after level "decoded" is the same in all.
    for format, level in (("onnx", "decoded"), ("torchscript", "full")):
        path = path_of(tmp_path, format)
        rows = export_model(model, path, format=format, level=level, stds=stds)
        assert passes(rows) and all(row.found for row in rows)


@by_format
@pytest.mark.parametrize("level", ["raw", "decoded"])
def test_levels(format, level, tmp_path):
    rows = export_model(
        make_spread_gfl(), path_of(tmp_path, format), format=format, level=level, stds=True
    )
    assert passes(rows) and len(rows) == 4
    shapes = {(row.shape[0] > 1, row.shape[1] > row.shape[2]) for row in rows}
    assert len(shapes) > 2


@by_format
def test_settings_of_the_detector(format, tmp_path):
    """With a small top-k, Detectron2's adapter froze how many candidates there were."""
    model = make_spread_gfl(
        test_score_thresh=[0.05, 0.3, 0.1],
        test_topk_candidates=7,
        max_detections_per_image=9,
        test_clip_margin=3.0,
        suppression=HardNMS(0.5, class_agnostic=True),
    )
    path = path_of(tmp_path, format)
    assert passes(export_model(model, path, format=format))
    counts, places = set(), set()
    graph = FORMATS[format].read(path)
    for batch in check_images(graph.card):
        places.add(round(batch.shape[-1] - float(graph(batch)["boxes"][:, 2].max()), 3))
        counts |= {*torch.bincount(graph(batch)["image_idxs"], minlength=len(batch)).tolist()}
    assert len(counts) > 1 and max(counts) <= 9 and min(places) == 3
    card = graph.card
    assert card.score_thresh == pytest.approx([0.05, 0.3, 0.1]) and card.class_agnostic
    assert (card.nms_thresh, card.topk_candidates, card.max_detections) == (0.5, 7, 9)


@by_format
def test_preprocessing_outside(format, tmp_path):
    path = path_of(tmp_path, format)
    model = make_spread_gfl()
    assert passes(export_model(model, path, format=format, preprocessing="outside"))
    graph = FORMATS[format].read(path)
    images = [torch.rand(3, 181, 190) * 255, torch.rand(3, 195, 183) * 255]
    batch = model.preprocess_image([{"image": image} for image in images])
    outputs = graph(batch.tensor, torch.tensor(batch.image_sizes))
    with torch.no_grad():
        found = [x["instances"] for x in model([{"image": image} for image in images])]
    for i, expected in enumerate(found):
        rows = outputs["image_idxs"] == i
        assert len(expected) > 3
        torch.testing.assert_close(outputs["scores"][rows], expected.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            outputs["boxes"][rows], expected.pred_boxes.tensor, atol=1e-3, rtol=0
        )


@by_format
def test_nothing_is_found(format, default_file):
    graph = FORMATS[format].read(default_file(format)).with_score_thresh(torch.full((3,), 0.99999))
    outputs = graph(torch.zeros(2, 3, 70, 70))
    assert {name: tuple(x.shape) for name, x in outputs.items()} == {
        "boxes": (0, 4),
        "scores": (0,),
        "classes": (0,),
        "image_idxs": (0,),
        "stds": (0, 4),
    }


@by_format
def test_half_precision(format, tmp_path):
    path = path_of(tmp_path, format)
    rows = export_model(make_spread_gfl(), path, format=format, half=True)
    assert passes(rows, "float16") and FORMATS[format].read(path).card.precision == "float16"
    if format == "onnx":
        kinds = {onnx.TensorProto.DataType.Name(x.data_type) for x in weights_of(path)}
        assert kinds == {"FLOAT16", "FLOAT"}  # the DGQP is in float32
        assert {x.data_type for x in weights_of(path, "quality_predictor")} <= {1}


def weights_of(path, part="detector."):
    tensors = [x for x in onnx.load(path).graph.initializer if part in x.name]
    return tensors


@pytest.mark.slow
@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_convolutions(modulated, tmp_path):
    class Deformable(TinyBackbone):
        def __init__(self):
            super().__init__()
            plain = Conv2d(3, 3, 3, padding=1)
            self.twin, self.offsets = deformable_twin(plain, modulated, 1)
            nn.init.normal_(self.offsets.weight, std=0.3)

        def forward(self, x):
            x = nn.functional.avg_pool2d(x, 4)
            return super().forward(
                nn.functional.interpolate(self.twin(x, self.offsets(x)), scale_factor=4)
            )

    model = make_spread_gfl(backbone=Deformable())
    for format in FORMATS if modulated else ["onnx"]:
        path = path_of(tmp_path, format)
        assert passes(export_model(model, path, format=format))
    written = onnx.load(path_of(tmp_path, "onnx"))
    assert written.opset_import[0].version == 19  # the first with DeformConv
    assert "DeformConv" in {node.op_type for node in written.graph.node}


# What an ONNX file is made of.


@pytest.fixture(scope="module")
def onnx_file(default_file):
    return default_file("onnx")


def test_an_onnx_file_is_core_operators_of_one_opset(onnx_file):
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model, full_check=True)
    assert [(x.domain, x.version) for x in model.opset_import] == [("", 18)]
    assert len(model.functions) == 0 and {node.domain for node in model.graph.node} == {""}
    assert [node.op_type for node in model.graph.node].count("NonMaxSuppression") == 1
    # Nothing of the machine where it was written.
    assert b"/" + b"site-packages" not in model.SerializeToString()
    assert not any(node.metadata_props for node in model.graph.node)


# What TensorRT 8.4's parser of ONNX has, of what detectors need, and what docs/export.md says it
# lacks.
TENSORRT = """
Add And AveragePool Cast Clip Concat Constant Conv Div Equal Exp Expand Floor Gather
GatherElements GatherND Gemm Greater GreaterOrEqual InstanceNormalization Log MatMul Max MaxPool
Min Mul Neg NonMaxSuppression Pad Pow Range ReduceMean ReduceProd ReduceSum Relu Reshape Resize
ScatterND Shape Sigmoid Slice Softmax Sqrt Squeeze Sub TopK Transpose Unsqueeze Where
"""


def test_operators_that_tensorrt_has(onnx_file, tmp_path):
    assert {node.op_type for node in onnx.load(onnx_file).graph.node} - {*TENSORRT.split()} == {
        "Mod",  # of the padding
        "NonZero",  # of the number of detections
    }
    path = tmp_path / "model.onnx"
    export_model(make_spread_gfl(), path, level="decoded", preprocessing="outside", stds=True)
    assert {node.op_type for node in onnx.load(path).graph.node} <= {*TENSORRT.split()}


def test_the_sizes_of_an_onnx_file_are_free(onnx_file):
    session = onnxruntime.InferenceSession(onnx_file)
    batch, channels, height, width = session.get_inputs()[0].shape
    assert channels == 3 and all(isinstance(x, str) for x in (batch, height, width))
    names = [x.name for x in session.get_outputs()]
    assert names == ["boxes", "scores", "classes", "image_idxs", "stds"]


def test_the_card_of_an_onnx_file(onnx_file):
    metadata = onnxruntime.InferenceSession(onnx_file).get_modelmeta().custom_metadata_map
    card = ModelCard.from_json(metadata[KEY], onnx_file)
    assert card.class_names == ["a", "b", "c"] and card.category_ids == [3, 1, 2]
    assert card.resize == {"short_edge": 192, "max_size": 333}
    assert (card.level, card.preprocessing, card.stds) == ("full", "inside", True)
    assert card.strides == [8, 16] and card.size_divisibility == 16
    assert card.pixel_mean == pytest.approx([123.675, 116.28, 103.53])
    assert (card.nms_thresh, card.topk_candidates, card.max_detections) == (0.6, 1000, 100)
    assert card.score_thresh == pytest.approx(0.05) and {*card.versions} == {
        "gfocal",
        "detectron2",
        "torch",
    }


def test_openvino_reads_an_onnx_file(onnx_file):
    openvino = pytest.importorskip("openvino")
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # its default on this CPU is bfloat16
    compiled = openvino.Core().compile_model(onnx_file, "CPU", exact)
    session = onnxruntime.InferenceSession(onnx_file)
    for shape in ((1, 3, 161, 163), (3, 3, 96, 200)):
        images = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
        theirs = compiled(images)
        for name, expected in zip(
            ("boxes", "scores", "classes", "image_idxs", "stds"),
            session.run(None, {"images": images}),
        ):
            assert len(expected) > 10
            np.testing.assert_allclose(theirs[name], expected, atol=2e-3, rtol=0)


# A process that never imported gfocal.

RUN = """
import json, sys
import numpy as np, torch
import torchvision  # for its operator nms
images = torch.from_numpy(np.load(sys.argv[2]))
if sys.argv[1].endswith(".ts"):
    module = torch.jit.load(sys.argv[1])
else:
    module = torch.export.load(sys.argv[1]).module()
outputs = module(images)
np.savez(sys.argv[3], *[x.numpy() for x in outputs])
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules} & {"gfocal", "detectron2"})))
"""


@pytest.mark.parametrize("format", ["torchscript", "torch_export"])
def test_a_process_without_gfocal(format, default_file, tmp_path):
    path = default_file(format)
    images = torch.rand(3, 3, 170, 210) * 255
    np.save(tmp_path / "images.npy", images.numpy())
    run = subprocess.run(
        [sys.executable, "-c", RUN, path, str(tmp_path / "images.npy"), str(tmp_path / "out.npz")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []
    expected = FORMATS[format].read(path)(images)
    with np.load(tmp_path / "out.npz") as outputs:
        for found, x in zip(outputs.values(), expected.values()):
            assert len(x) > 10
            np.testing.assert_allclose(found, x.numpy(), atol=1e-3)


def test_torchscript_has_no_python(default_file):
    """Nothing in it calls back: every node is an operator of PyTorch or torchvision."""
    module = torch.jit.load(default_file("torchscript"))
    kinds = {node.kind() for node in module.inlined_graph.nodes()}
    assert {kind.split("::")[0] for kind in kinds} <= {"aten", "prim", "torchvision"}
    assert "torchvision::nms" in kinds and "prim::PythonOp" not in kinds


# A wrong export leaves no file.


@by_format
def test_a_graph_that_froze_a_number_is_refused(format, tmp_path, monkeypatch):
    def frozen(self, shapes, like):  # the sizes of the traced batch
        return original(self, [(24, 32), (12, 16)], like)

    original = GFL.locations
    path = tmp_path / f"model{FORMATS[format].suffix}"
    path.write_bytes(b"before")
    monkeypatch.setattr(GFL, "check_decode", lambda self: None)
    monkeypatch.setattr(GFL, "locations", frozen)
    with pytest.raises(Exception):  # noqa: B017 (each runtime has its own)
        export_model(make_spread_gfl(), path, format=format)
    assert path.read_bytes() == b"before"
    assert [x.name for x in tmp_path.iterdir()] == [path.name]


def test_a_file_with_other_numbers_is_refused(tmp_path, monkeypatch):
    from gfocal.export import exporting

    model, other = make_spread_gfl(), make_spread_gfl()
    network = exporting.TensorNetwork
    monkeypatch.setattr(
        exporting, "TensorNetwork", lambda detector, *a, **k: network(other, *a, **k)
    )
    with pytest.raises(ParityError, match="does not do what the detector does.*\n.*worst box"):
        export_model(model, tmp_path / "model.ts", format="torchscript")
    assert not any(tmp_path.iterdir())


def test_a_detector_that_finds_nothing_cannot_be_compared(tmp_path):
    model = make_spread_gfl(quality_predictor=NoQuality())
    nn.init.constant_(model.head.cls_logits.bias, -60.0)
    with pytest.raises(ParityError, match="finds nothing on the images.*--images"):
        export_model(model, tmp_path / "model.ts", format="torchscript")


def test_wrong_arguments(tmp_path):
    model = make_spread_gfl()
    with pytest.raises(ValueError, match="format is 'tflite'; expected one of onnx, torchscript"):
        export_model(model, tmp_path / "x", format="tflite")
    for arguments in ({"format": "torchscript"}, {"half": True}):
        with pytest.raises(ValueError, match="calibration is for ONNX in float32"):
            export_model(model, tmp_path / "x.ts", calibration=[], **arguments)


@by_format
def test_other_files_are_told(format, tmp_path):
    path = tmp_path / f"x{FORMATS[format].suffix}"
    path.write_bytes(b"no model at all")
    with pytest.raises(ValueError, match=f"{path.name} is no"):
        FORMATS[format].read(str(path))


def test_weights_in_a_file_of_their_own(tmp_path, monkeypatch):
    """An ONNX file of more than 2 GB is two."""
    from torch.onnx._internal.exporter import _onnx_program

    monkeypatch.setattr(_onnx_program, "_LARGE_MODEL_THRESHOLD", 0)
    path = tmp_path / "model.onnx"
    assert passes(export_model(make_spread_gfl(), path, resize={}))
    assert {x.name for x in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("model.onnx", "model.onnx.data"):
        (tmp_path / name).rename(moved / name)
    OnnxPredictor(moved / "model.onnx")


def test_a_backbone_without_divisibility(tmp_path):
    """Its images can have any size. On the card the divisibility is 1."""

    class Backbone(TinyBackbone):
        size_divisibility = 0

        def forward(self, x):
            pool = functools.partial(nn.functional.avg_pool2d, ceil_mode=True)
            return {k: self.conv[k](pool(x, s)) for k, s in (("p3", 8), ("p4", 16))}

    path = tmp_path / "model.onnx"
    assert passes(export_model(make_spread_gfl(backbone=Backbone()), path, resize={}))
    predictor = OnnxPredictor(path)
    assert predictor.card.size_divisibility == 1
    assert len(predictor(np.full((99, 131, 3), 200, np.uint8))["instances"]) > 3
