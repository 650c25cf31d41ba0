"""GFL as the first stage of Detectron2's R-CNNs."""

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.utils.events import EventStorage

from gfocal.config import add_gfocal_config, model_zoo
from gfocal.detectors import GFLProposals
from gfocal.modeling.postprocess import NMSPostProcess
from gfocal.modeling.suppression import HardNMS
from tests.helpers.tiny import make_gfl, make_head, make_input
from tests.helpers.tiny_rcnn import (
    cascade_heads,
    faster_heads,
    make_proposals,
    make_rcnn,
    mask_heads,
    with_masks,
)

pytestmark = pytest.mark.usefixtures("one_thread")
BOXES = [[3.0, 2.0, 63.0, 58.0], [60.0, 5.0, 90.0, 60.0]]


def batch():
    return [with_masks(make_input(64, 96, BOXES, [0, 2])), with_masks(make_input(48, 80))]


@pytest.mark.parametrize("make", [faster_heads, mask_heads, cascade_heads])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_detectron2s_heads_train_on_it(make, num_classes):
    torch.manual_seed(0)
    model = make_rcnn(make(), num_classes=num_classes).train()
    with EventStorage():
        losses = model(batch())
    of_proposals = {"loss_gfl_cls", "loss_gfl_box_reg", "loss_gfl_dfl"}
    assert of_proposals < losses.keys()
    assert len(losses) - 3 == {faster_heads: 2, mask_heads: 3, cascade_heads: 6}[make]
    assert all(x.isfinite() for x in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    with torch.no_grad():
        found = model.eval()([make_input(64, 96) | {"height": 128, "width": 192}])[0]["instances"]
    assert found.image_size == (128, 192)


def test_no_gradient_through_proposals():
    torch.manual_seed(0)
    model = make_rcnn(faster_heads()).train()
    with EventStorage():
        losses = model(batch())
    (losses["loss_cls"] + losses["loss_box_reg"]).backward()
    assert all(x.grad is None for x in model.proposal_generator.parameters())
    assert all(x.grad is not None for x in model.backbone.parameters())


@pytest.mark.parametrize("num_classes", [1, 3])
def test_losses_are_those_of_gfl(num_classes):
    torch.manual_seed(0)
    gfl = make_gfl(num_classes, statistics_period=0).train()
    proposals = make_proposals(num_classes, head=gfl.head).train()
    classes = [0, 2] if num_classes == 3 else [0, 0]
    inputs = [make_input(64, 96, BOXES, classes), make_input(48, 80)]
    with EventStorage():
        expected = gfl(inputs)
    images = gfl.preprocess_image(inputs)
    instances = [x["instances"] for x in inputs]
    if num_classes == 1:  # whatever their classes are
        instances[0].gt_classes += torch.tensor([7, 1])
    _, losses = proposals(images, gfl.backbone(images.tensor), instances)
    assert {k.replace("_gfl_", "_"): v for k, v in losses.items()} == expected


def test_proposals_by_definition():
    """The best score of each location; then per-level top-k, decoding and one NMS."""
    torch.manual_seed(0)
    generator = make_proposals(3, pre_nms_topk=(30, 20), post_nms_topk=(15, 10)).double()
    maps = {k: 5 * torch.randn(2, 8, s, s).double() for k, s in (("p3", 12), ("p4", 6))}
    images = make_gfl().preprocess_image([make_input(96, 96), make_input(80, 96)])
    for mode, pre, post in ((True, 30, 15), (False, 20, 10)):
        generator.train(mode)
        truth = [make_input(96, 96)["instances"], make_input(80, 96)["instances"]]
        proposals, losses = generator(images, maps, truth if mode else None)
        assert bool(losses) == mode
        levels = list(maps.values())
        predictions, anchors = generator.head(levels), generator.anchors(levels)
        scores = predictions.joint_logits().sigmoid()
        for i, (found, size) in enumerate(zip(proposals, ((96, 96), (80, 96)))):
            rows = []
            for level in (torch.arange(144), torch.arange(144, 180)):
                best = scores[i, level].amax(dim=1)
                rows.append(level[best.topk(min(pre, len(level))).indices])
            rows = torch.cat(rows)
            distances = predictions.distances_of(predictions.box_logits[i, rows])
            boxes = anchors.decode(distances, rows)
            boxes[:, 0::2].clamp_(0, size[1])
            boxes[:, 1::2].clamp_(0, size[0])
            best = scores[i, rows].amax(dim=1)
            keep, _ = HardNMS(iou_thresh=0.7)(boxes, best, torch.zeros_like(rows), post)
            assert found.image_size == size and len(found) == len(keep) <= post
            torch.testing.assert_close(found.proposal_boxes.tensor, boxes[keep].float())
            torch.testing.assert_close(found.objectness_logits.sigmoid(), best[keep])
            assert (found.objectness_logits.diff() <= 0).all()
            assert not found.objectness_logits.requires_grad


def tiny_yacs(*overrides):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.merge_from_list(
        [
            "MODEL.META_ARCHITECTURE", "GeneralizedRCNN",
            "MODEL.DEVICE", "cpu",
            "MODEL.BACKBONE.NAME", "build_gfl_resnet_fpn_backbone",
            "MODEL.RESNETS.DEPTH", 18,
            "MODEL.RESNETS.RES2_OUT_CHANNELS", 64,
            "MODEL.RESNETS.STRIDE_IN_1X1", False,
            "MODEL.RESNETS.OUT_FEATURES", ["res3", "res4", "res5"],
            "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"],
            "MODEL.FPN.OUT_CHANNELS", 32,
            "MODEL.GFL.NUM_CLASSES", 1,
            "MODEL.GFL.CONV_DIM", 32,
            "MODEL.GFL.NUM_CONVS", 1,
            "MODEL.PROPOSAL_GENERATOR.NAME", "GFLProposals",
            "MODEL.RPN.POST_NMS_TOPK_TEST", 50,
            "MODEL.ROI_HEADS.NAME", "StandardROIHeads",
            "MODEL.ROI_HEADS.IN_FEATURES", ["p3", "p4", "p5"],
            "MODEL.ROI_HEADS.NUM_CLASSES", 3,
            "MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead",
            "MODEL.ROI_BOX_HEAD.NUM_FC", 1,
            "MODEL.ROI_BOX_HEAD.FC_DIM", 16,
            "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 4,
            *overrides,
        ]
    )  # fmt: skip
    return cfg


def test_the_twins_are_the_same_detector():
    name = "COCO-Detection/gfl_proposals_faster_rcnn_R_50_FPN_1x"
    cfg, lazy = (model_zoo.get_config(f"{name}.{suffix}") for suffix in ("yaml", "py"))
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        twin, model = build_model(cfg), instantiate(lazy.model)
    shapes = [{k: x.shape for k, x in m.state_dict().items()} for m in (twin, model)]
    assert shapes[0] == shapes[1]
    ours, theirs = model.proposal_generator, twin.proposal_generator
    assert repr(ours.postprocess) == repr(theirs.postprocess)
    assert repr(ours.postprocess_in_training) == repr(theirs.postprocess_in_training)
    assert ours.postprocess_in_training.topk_candidates == 2000
    assert str(ours) == str(theirs)
    for pooler in (model.roi_heads.box_pooler, twin.roi_heads.box_pooler):
        assert [x.spatial_scale for x in pooler.level_poolers] == [1 / 8, 1 / 16, 1 / 32]
    assert model.roi_heads.num_classes == twin.roi_heads.num_classes == 80


def test_yacs():
    model = build_model(tiny_yacs())
    generator = model.proposal_generator
    assert type(generator) is GFLProposals and generator.num_classes == 1
    postprocess = generator.postprocess
    assert isinstance(postprocess, NMSPostProcess) and postprocess.max_detections == 50
    assert postprocess.nms_thresh == 0.7 and postprocess.topk_candidates == 6000
    with EventStorage():
        losses = model.train()([make_input(160, 192, BOXES, [0, 2])])
    assert {"loss_gfl_cls", "loss_cls"} < losses.keys()
    assert META_ARCH_REGISTRY.get("ProposalNetwork")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"in_features": ["p3"]}, r"2 levels.*expected those of in_features \['p3'\]"),
        ({"num_classes": 2, "head": make_head(1)}, "the head has 1 classes, the detector 2"),
        ({"pre_nms_topk": (0, 1)}, "topk_candidates is 0"),
        ({"nms_thresh": 1.5}, "iou_thresh is 1.5"),
    ],
)
def test_mistakes(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_proposals(**kwargs)


def test_training_without_instances():
    model = make_rcnn(faster_heads()).train()
    with pytest.raises(ValueError, match='in training the images need "instances"'):
        model([{"image": make_input(32, 32)["image"]}])
