"""Masks of GFL's detections: boxes stay to the bit, and a trained GFL can be given masks."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead, StandardROIHeads
from detectron2.utils.events import EventStorage

from gfocal.config import model_zoo
from gfocal.detectors import AugmentedDetector, MaskGFL
from gfocal.detectors.gfl import GFL
from gfocal.export.optimize import optimize_for_inference
from tests.helpers.tiny import make_gfl, make_input
from tests.helpers.tiny_rcnn import with_masks

pytestmark = pytest.mark.usefixtures("one_thread")
BOXES = [[3.0, 2.0, 63.0, 58.0], [60.0, 5.0, 90.0, 60.0]]


def mask_heads(num_classes=3, **kwargs):
    arguments = {
        "num_classes": num_classes,
        "batch_size_per_image": 16,
        "positive_fraction": 1.0,
        "proposal_matcher": Matcher([0.5], [0, 1]),
        "box_in_features": [],
        "box_pooler": None,
        "box_head": None,
        "box_predictor": None,
        "mask_in_features": ["p3", "p4"],
        "mask_pooler": ROIPooler(
            7, scales=(1 / 8, 1 / 16), sampling_ratio=0, pooler_type="ROIAlignV2"
        ),
        "mask_head": MaskRCNNConvUpsampleHead(
            ShapeSpec(channels=8, height=7, width=7), num_classes=num_classes, conv_dims=[8, 8]
        ),
    }
    return StandardROIHeads(**{**arguments, **kwargs})


def make(heads=None, **kwargs):
    parts = make_gfl()
    names = "backbone head head_in_features anchor_generator matcher criterion num_classes"
    return MaskGFL(
        **{name: getattr(parts, name) for name in names.split()},
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
        test_score_thresh=0.0,
        max_detections_per_image=20,
        statistics_period=0,
        roi_heads=heads or mask_heads(),
        **kwargs,
    )


def batch():
    return [with_masks(make_input(64, 96, BOXES, [0, 2])), with_masks(make_input(48, 80))]


def test_boxes_are_those_of_gfl_to_the_bit():
    torch.manual_seed(0)
    model = make().eval()
    gfl = make_gfl(test_score_thresh=0.0, max_detections_per_image=20).eval()
    gfl.load_state_dict({k: x for k, x in model.state_dict().items() if "roi_heads" not in k})
    inputs = [make_input(64, 96) | {"height": 128, "width": 200}, make_input(48, 80)]
    with torch.no_grad():
        found, expected = model(inputs), gfl(inputs)
    for ours, theirs in zip(found, expected):
        ours, theirs = ours["instances"], theirs["instances"]
        assert len(ours) > 2 and ours.image_size == theirs.image_size
        assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
        for name in ("scores", "pred_classes", "pred_box_stds", "anchor_idxs"):
            assert torch.equal(ours.get(name), theirs.get(name)), name
        assert ours.pred_masks.shape == (len(ours), *ours.image_size)
        assert ours.pred_masks.dtype == torch.bool


def test_masks_are_those_of_detectron2s_branch():
    """Of the class of each detection; pasted into its box, each covers the same share of it."""
    torch.manual_seed(0)
    model = make().eval()
    inputs = make_input(64, 96)
    heads = model.roi_heads
    with torch.no_grad():
        heads.mask_head.predictor.bias.copy_(torch.tensor([-9.0, 0.0, 9.0]))  # none, some, all
        found = model([inputs])[0]["instances"]
        maps = model.backbone(model.preprocess_image([inputs]).tensor)
        pooled = heads.mask_pooler([maps["p3"], maps["p4"]], [found.pred_boxes])
        logits = heads.mask_head.layers(pooled)
    classes = found.pred_classes
    assert len(classes.unique()) == 3
    expected = logits[torch.arange(len(found)), classes].sigmoid().ge(0.5).float().mean(dim=(1, 2))
    share = found.pred_masks.flatten(1).sum(dim=1) / found.pred_boxes.area()
    torch.testing.assert_close(share, expected, atol=0.2, rtol=0)
    for mask, box in zip(found.pred_masks, found.pred_boxes.tensor):
        x0, y0, x1, y1 = box.round().int().tolist()
        mask[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = False
        assert not mask.any()  # nothing outside of the box


def test_training_learns_both():
    torch.manual_seed(0)
    model = make().train()
    with EventStorage():
        losses = model(batch())
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_dfl", "loss_mask"}
    torch.manual_seed(0)
    gfl = make_gfl(statistics_period=0).train()
    gfl.load_state_dict({k: x for k, x in model.state_dict().items() if "roi_heads" not in k})
    with EventStorage():
        torch.manual_seed(1)
        inputs = batch()
        expected, found = gfl(inputs), model(inputs)
    assert all(torch.equal(found[name], loss) for name, loss in expected.items())
    sum(found.values()).backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in model.parameters())


def test_masks_alone():
    torch.manual_seed(0)
    model = make(train_detector=False).train()
    assert not model.backbone.training and not model.head.training and model.roi_heads.training
    before = {k: x.clone() for k, x in model.state_dict().items()}
    optimizer = torch.optim.SGD([x for x in model.parameters() if x.requires_grad], lr=0.5)
    values = []
    with EventStorage():
        for _ in range(25):
            losses = model(batch()[:1])
            optimizer.zero_grad()
            losses["loss_mask"].backward()
            optimizer.step()
            values.append(losses["loss_mask"].item())
    assert set(losses) == {"loss_mask"} and values[-1] < 0.8 * values[0]
    changed = {k for k, x in model.state_dict().items() if not torch.equal(x, before[k])}
    assert changed and all(k.startswith("roi_heads") for k in changed)


def test_half_precision_is_for_the_networks():
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        fast = optimize_for_inference(model, dtype=torch.bfloat16)
        found = fast([make_input(64, 96)])[0]["instances"]
    assert found.pred_masks.shape == (len(found), 64, 96) and len(found)
    assert next(model.backbone.parameters()).dtype == torch.bfloat16
    assert next(model.roi_heads.parameters()).dtype == torch.float32


def test_mistakes():
    with pytest.raises(ValueError, match="roi_heads has 2 classes; expected those of the detector"):
        make(mask_heads(num_classes=2))
    with pytest.raises(ValueError, match=r"mask_in_features \['p9'\] are not among \['p3', 'p4'\]"):
        make(mask_heads(mask_in_features=["p9"]))
    without = mask_heads(mask_in_features=None, mask_pooler=None, mask_head=None)
    with pytest.raises(ValueError, match="roi_heads has no mask branch"):
        make(without)
    model = make().train()
    with (
        EventStorage(),
        pytest.raises(ValueError, match=r"a.jpg has no gt_masks.*use_instance_mas"),
    ):
        model([make_input(64, 96, BOXES, [0, 2], file_name="a.jpg")])
    with pytest.raises(TypeError, match="gfocal export writes no masks"):
        model.check_decode()
    with pytest.raises(TypeError, match="gives no masks and no second stage; the model is a MaskG"):
        AugmentedDetector(model.eval(), [64], 96)
    with pytest.raises(ValueError, match="takes no CenterPad"):
        model.eval()([make_input(64, 96, border=(3, 2))])


NAMES = ["gfl_proposals_mask_rcnn", "gfl_proposals_cascade_mask_rcnn", "gflv2_masks"]


@pytest.mark.parametrize("name", NAMES)
def test_the_configs(name):
    cfg = model_zoo.get_config(f"COCO-InstanceSegmentation/{name}_R_50_FPN_1x.py")
    assert cfg.dataloader.train.mapper.use_instance_mask and cfg.dataloader.train.dataset.masks
    assert cfg.dataloader.test.mapper.use_instance_mask and cfg.dataloader.test.dataset.masks
    assert cfg.dataloader.evaluator.tasks == ["bbox", "segm"]
    with torch.device("meta"):
        model = instantiate(cfg.model)
    assert model.roi_heads.mask_head.deconv.out_channels == 256
    assert isinstance(model, GFL) == (name == "gflv2_masks")


def test_the_yacs_twin_is_the_same_detector():
    from detectron2.modeling import build_model

    cfg, lazy = (
        model_zoo.get_config(f"COCO-InstanceSegmentation/{NAMES[0]}_R_50_FPN_1x.{suffix}")
        for suffix in ("yaml", "py")
    )
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        twin, model = build_model(cfg), instantiate(lazy.model)
    shapes = [{k: x.shape for k, x in m.state_dict().items()} for m in (twin, model)]
    assert shapes[0] == shapes[1]
    pooler = twin.roi_heads.mask_pooler
    assert pooler.output_size == model.roi_heads.mask_pooler.output_size == (14, 14)
