"""A graph that is wrong in one thing is refused, whatever the thing is."""

import pytest
import torch
from torch import nn

from gfocal.detectors import GFL
from gfocal.export import network as module
from gfocal.export.exporting import ParityError, export_model
from gfocal.export.network import TensorNetwork
from tests.helpers.spread import make_spread_gfl

pytestmark = pytest.mark.usefixtures("one_thread")


def changed(name, change, of=TensorNetwork):
    """Makes what a method returns wrong."""

    def patch(monkeypatch):
        method = getattr(of, name)
        monkeypatch.setattr(of, name, lambda self, *x: change(method(self, *x)))

    return patch


def set_to(name, value):
    """Gives the network another number."""

    def patch(monkeypatch):
        method = TensorNetwork._set_up_postprocess

        def set_up(self, part):
            method(self, part)
            setattr(self, name, value(getattr(self, name)))

        monkeypatch.setattr(TensorNetwork, "_set_up_postprocess", set_up)

    return patch


def of_output(name, change):
    """Makes one output wrong."""
    index = ["boxes", "scores", "classes", "image_idxs", "stds"].index(name)
    return changed("_detections", lambda out: (*out[:index], change(out[index]), *out[index + 1 :]))


def clipped_to_the_first(monkeypatch):
    def clipped(boxes, images, sizes, margin):
        return clip(boxes, images, sizes[:1].expand_as(sizes), margin)

    clip = module._clipped
    monkeypatch.setattr(module, "_clipped", clipped)


WRONG = {
    "x and y": changed("locations", lambda x: (x[0].flip(1), x[1]), GFL),
    "stride of a level": changed(
        "locations", lambda x: (x[0], torch.where(x[1] == 16, 15.0, x[1])), GFL
    ),
    "no clipping": lambda monkeypatch: monkeypatch.setattr(module, "_clipped", lambda *x: x[0]),
    "value of the padding": changed("_preprocessed", lambda x: torch.where(x == 0, 0.5, x)),
    "brightness": changed("_preprocessed", lambda x: 1.01 * x),
    "threshold, 10 % higher": set_to("score_thresh", lambda x: 1.1 * x),
    "threshold, 10 % lower": set_to("score_thresh", lambda x: 0.9 * x),
    "thresholds of the classes": set_to("score_thresh", lambda x: x.flip(0)),
    "number of detections": set_to("max_detections", lambda x: 10 * x),
    "candidates of a level": set_to("topk", lambda x: 2 * x),
    "threshold of NMS": set_to("nms_thresh", lambda x: x + 0.02),
    "NMS over classes": set_to("class_agnostic", lambda x: True),
    "classes": of_output("classes", lambda x: 2 - x),
    "images": of_output("image_idxs", lambda x: 0 * x),
    "scores": of_output("scores", lambda x: 1.001 * x),
    "scores that are no numbers": of_output("scores", lambda x: x * float("nan")),
    "sides": of_output("boxes", lambda x: x + 0.01),
    "scale of the deviations": changed("_stds", lambda x: 1.01 * x),
    "sides of the deviations": changed("_stds", lambda x: x.roll(1, -1)),
    "deviations that are no numbers": changed("_stds", lambda x: x * float("nan")),
    "order": changed("_detections", lambda x: [values.flip(0) for values in x]),
}


def export(model, path, **arguments):
    return export_model(model, path, format="torchscript", stds=True, **arguments)


# In float16 the limits are wide: some of these are within them.
HALF = ("scores", "candidates of a level", "threshold, 10 % lower", "sides of the deviations")
CASES = [(what, False) for what in WRONG] + [(what, True) for what in HALF]


@pytest.mark.parametrize(("what", "half"), [("", False), ("", True), *CASES])
def test_what_is_wrong_is_refused(what, half, tmp_path, monkeypatch):
    model = make_spread_gfl(test_score_thresh=[0.2, 0.25, 0.3])
    monkeypatch.setattr(GFL, "check_decode", lambda self: None)
    if not what:
        export(model, tmp_path / "right.ts", half=half)
        return
    WRONG[what](monkeypatch)
    with pytest.raises(ParityError):
        export(model, tmp_path / "wrong.ts", half=half)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("level", ["decoded", "full"])
def test_the_size_of_another_image_is_refused(level, tmp_path, monkeypatch):
    """Outside preprocessing: the images of a batch have different sizes."""
    model = make_spread_gfl()
    export(model, tmp_path / "right.ts", level=level, preprocessing="outside")
    clipped_to_the_first(monkeypatch)
    with pytest.raises(ParityError):
        export(model, tmp_path / "wrong.ts", level=level, preprocessing="outside")


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_other_levels(factor, tmp_path, monkeypatch):
    def wrong(values):
        return {name: factor * x if "std" in name else x for name, x in values.items()}

    changed("_stds", lambda x: factor * x)(monkeypatch)
    changed("_raw", wrong)(monkeypatch)
    for level in ("raw", "decoded"):
        with pytest.raises(ParityError):
            export(make_spread_gfl(), tmp_path / "wrong.ts", level=level)


@pytest.mark.parametrize("part", ["x and y", "stride of a level"])
def test_candidates_that_are_not_those_of_the_detections(part, tmp_path, monkeypatch):
    """`decode` in file and detector are the same here, and both are wrong."""
    monkeypatch.setattr(GFL, "check_decode", lambda self: None)
    WRONG[part](monkeypatch)
    with pytest.raises(ParityError):
        export(make_spread_gfl(), tmp_path / "wrong.ts", level="decoded")


def test_images_come_beside_the_made_up_ones(tmp_path, monkeypatch):
    """One image a batch could not tell that all detections are of image 0."""
    of_output("image_idxs", lambda x: 0 * x)(monkeypatch)
    with pytest.raises(ParityError):
        export(make_spread_gfl(), tmp_path / "m.ts", images=[255 * torch.rand(1, 3, 90, 70)])


# The detector is what the caller has, and stays so.


def with_batch_norm():
    model = make_spread_gfl()
    for name, conv in model.backbone.conv.items():
        model.backbone.conv[name] = nn.Sequential(conv, nn.BatchNorm2d(8))
    return model


@pytest.mark.parametrize("level", ["decoded", "full"])
def test_a_detector_in_training_stays_as_it_is(level, tmp_path):
    model = with_batch_norm().train()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    rows = export(model, tmp_path / "model.ts", level=level)
    assert all(module.training for module in model.modules())
    for name, x in model.state_dict().items():
        assert torch.equal(x, before[name]), name
    assert [row[:5] for row in rows] == [
        row[:5] for row in export(model.eval(), tmp_path / "same.ts", level=level)
    ]


def test_autocast_of_the_caller_is_not_in_the_file(tmp_path):
    model = make_spread_gfl()
    with torch.autocast("cpu", torch.bfloat16):
        rows = export(model, tmp_path / "model.ts")
    assert [row[:5] for row in rows] == [row[:5] for row in export(model, tmp_path / "same.ts")]


def test_quantized_layers(tmp_path):
    """Weights that are no parameters."""
    model = torch.ao.quantization.quantize_dynamic(make_spread_gfl(), {nn.Linear})
    assert export(model, tmp_path / "model.ts")


def test_a_detector_stays_as_it_is_after_an_error(tmp_path, monkeypatch):
    from gfocal.export import exporting

    def fails(*arguments):
        raise RuntimeError("the runtime fails")

    model = make_spread_gfl(test_score_thresh={0: 0.25, "default": 0.1})
    monkeypatch.setattr(exporting, "parity", fails)
    with pytest.raises(RuntimeError, match="the runtime fails"):
        export(model, tmp_path / "model.ts", half=True)
    assert model.test_score_thresh == {0: 0.25, "default": 0.1}
    assert next(model.parameters()).dtype == torch.float32
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_is_refused(dtype, tmp_path):
    model = make_spread_gfl()
    model.cast_networks(dtype)
    with pytest.raises(ValueError, match=f"conv.p3.weight is in {dtype}; expected torch.float32"):
        export(model, tmp_path / "model.ts")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    model = make_spread_gfl()
    model.head.cls_logits.bias.data[1] = float("nan")
    with pytest.raises(ValueError, match=r"head.cls_logits.bias has values that are not finite"):
        export(model, tmp_path / "model.ts")


# Where the file lies.


def test_the_folder_is_made(tmp_path):
    path = tmp_path / "mît späces" / "more" / "mö del.ts"
    export(make_spread_gfl(), path)
    assert [x.name for x in path.parent.iterdir()] == ["mö del.ts"]


def test_no_place_for_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.ts").mkdir()
    with pytest.raises(NotADirectoryError, match="file is a file, so .*model.ts cannot be written"):
        export(make_spread_gfl(), tmp_path / "file" / "model.ts")
    with pytest.raises(IsADirectoryError, match="folder.ts is a folder; expected a file"):
        export(make_spread_gfl(), tmp_path / "folder.ts")


def test_files_of_the_same_beginning_stay(tmp_path):
    (tmp_path / "model.part.ts").write_text("mine")
    export(make_spread_gfl(), tmp_path / "model.ts")
    assert (tmp_path / "model.part.ts").read_text() == "mine"
