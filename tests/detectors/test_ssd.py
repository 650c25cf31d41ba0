import math

import pytest
import torch
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from gfocal.config import add_gfocal_config, model_zoo
from gfocal.modeling.prior_head import PriorPredictions, SSDHead
from gfocal.modeling.prior_losses import SigmoidQualityFocalLoss, SoftmaxHardNegativeLoss
from gfocal.modeling.priors import PriorGenerator
from gfocal.process.sums import MicroBatchSums
from tests.helpers.tiny import make_input, truth_of
from tests.helpers.tiny_ssd import make_ssd

INITIALIZE = SoftmaxHardNegativeLoss().initialize
LOSSES = pytest.mark.parametrize("cls_loss", [SoftmaxHardNegativeLoss(), SigmoidQualityFocalLoss()])


def batch():
    torch.manual_seed(0)
    return [
        make_input(64, 96, [[10, 10, 40, 50], [60, 20, 90, 50]], [0, 2]),
        make_input(64, 96, [[5, 5, 30, 25]], [1]),
        make_input(48, 64),
    ]


@LOSSES
def test_it_trains(cls_loss):
    torch.manual_seed(0)
    model = make_ssd(cls_loss=cls_loss)
    losses = model(batch())
    assert losses.keys() == {"loss_cls", "loss_box_reg"}
    assert all(x.isfinite() and x > 0 and x.dim() == 0 for x in losses.values())
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@LOSSES
def test_images_without_boxes(cls_loss):
    torch.manual_seed(0)
    model = make_ssd(cls_loss=cls_loss)
    losses = model([make_input(64, 96), make_input(48, 64)])
    sum(losses.values()).backward()
    assert losses["loss_box_reg"] == 0
    # Softmax learns from hard negatives of images with objects; QFL from every location.
    assert (losses["loss_cls"] > 0) == isinstance(cls_loss, SigmoidQualityFocalLoss)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_losses_by_hand():
    """One level of one cell with four priors, one of which is the box itself: its deltas are 0. The
    head says (1, -0.5, 0, 2) and the same class scores everywhere."""
    model = make_ssd(num_classes=1)
    model.anchor_generator = PriorGenerator(sizes=[(8, 18)], aspect_ratios=[[4]], strides=[16])
    priors = model.anchor_generator([torch.zeros(1, 1, 1, 1)])
    predictions = PriorPredictions(
        torch.zeros(2, 4, 2, requires_grad=True),
        torch.tensor([1.0, -0.5, 0.0, 2.0]).expand(2, 4, 4),
    )
    truth = truth_of([Boxes([[4.0, 4, 12, 12]]), Boxes(torch.zeros(0, 4))])
    losses = model.losses(priors, predictions, truth)
    # Of the first image the positive and its three negatives count log(2) each, of the second
    # nothing; but the image counts as one positive. So both are divided by 2.
    assert losses["loss_cls"].item() == pytest.approx(4 * math.log(2) / 2)
    assert losses["loss_box_reg"].item() == pytest.approx((0.5 + 0.125 + 0 + 1.5) / 2)


def test_targets_by_hand():
    model = make_ssd()
    priors = PriorGenerator(sizes=[(8, 8)], aspect_ratios=[[]], strides=[8])(
        [torch.zeros(1, 1, 1, 3)]
    )
    truth = truth_of(
        [Boxes(torch.zeros(0, 4)), Boxes([[16.0, 0, 24, 8], [0, 0, 8, 8]])],
        [torch.zeros(0, dtype=torch.int64), torch.tensor([2, 1])],
        [(8, 16), (8, 24)],
    )
    truth = truth._replace(ignore_regions=[Boxes([[0.0, 0, 8, 8]]), None])
    targets = model.targets(priors, truth)
    assert targets.idxs.tolist() == [[-2, -2, -1, -1, -2, -2], [1, 1, -1, -1, 0, 0]]
    assert [x.tolist() for x in targets.fg_idxs] == [[1, 1, 1, 1], [0, 1, 4, 5]]
    assert targets.fg_labels.tolist() == [1, 1, 2, 2]
    assert targets.fg_boxes[:, 0].tolist() == [0, 0, 16, 16]


@LOSSES
def test_micro_batches_are_one_batch(cls_loss):
    """As are processes: the divisor is a mean over them."""
    torch.manual_seed(0)
    model = make_ssd(cls_loss=cls_loss)
    inputs = batch()[:2]
    together = model(inputs)
    sums = MicroBatchSums(2)
    for index, image in enumerate(inputs):
        with sums.counted(index):
            model([image])
    assert sums.add_up()
    apart = []
    for index, image in enumerate(inputs):
        with sums.micro_batch(index):
            apart.append(model([image]))
    for name, value in together.items():
        torch.testing.assert_close(sum(x[name] for x in apart) / 2, value)


@LOSSES
def test_detections(cls_loss):
    torch.manual_seed(0)
    model = make_ssd(cls_loss=cls_loss, test_score_thresh=0.001, max_detections_per_image=7).eval()
    image = {**make_input(64, 96), "height": 128, "width": 192}
    with torch.no_grad():
        (result,) = model([image])
        (candidates,) = model.candidates([image])
        priors, predictions = model.predict(model.preprocess_image([image]).tensor)
        boxes, scores = model.decode(model.preprocess_image([image]).tensor)
    found = result["instances"]
    assert found.image_size == (128, 192)
    assert len(found) == 7
    assert (found.scores.diff() <= 0).all()
    # NMS keeps the best candidate; the detections are those of suppress, in the output's pixels
    again = model.suppress((64, 96), candidates)
    assert torch.equal(again.scores, found.scores)
    torch.testing.assert_close(again.pred_boxes.tensor * 2, found.pred_boxes.tensor)
    # and each is a row of decode, clipped
    rows = found.anchor_idxs
    assert torch.equal(scores[0, rows, found.pred_classes], found.scores)
    limits = torch.tensor([96.0, 64, 96, 64])
    decoded = torch.minimum(boxes[0, rows].clamp(min=0), limits)
    torch.testing.assert_close(decoded * 2, found.pred_boxes.tensor)
    assert scores.shape == (1, sum(priors.level_sizes), 3)
    raw = model.raw(model.preprocess_image([image]).tensor)
    assert torch.equal(raw["deltas"], predictions.deltas)


def test_decode_can_be_traced():
    """And the trace is right for other sizes and batches."""
    torch.manual_seed(0)
    model = make_ssd().eval()

    class Decoded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model.decode(images)

    with torch.no_grad():
        traced = torch.jit.trace(Decoded(), torch.randn(1, 3, 64, 96), check_trace=False)
        images = torch.randn(2, 3, 96, 128)
        for found, expected in zip(traced(images), model.decode(images)):
            torch.testing.assert_close(found, expected)


def test_thresholds_of_classes():
    model = make_ssd(
        class_names=["a", "b", "c"],
        test_score_thresh={"b": 0.0, "default": 0.9},
    ).eval()
    for conv in model.head.cls_logits:
        torch.nn.init.zeros_(conv.weight)  # all classes score 1/4
    with torch.no_grad():
        found = model([make_input(64, 96)])[0]["instances"]
    assert len(found) and (found.pred_classes == 1).all()


def test_statistics():
    torch.manual_seed(0)
    model = make_ssd(statistics_period=1)
    with EventStorage(0) as storage:
        model(batch())
        numbers = {name: value for name, (value, _) in storage.latest().items()}
    assert numbers["boxes_without_positive"] == 0
    assert numbers["positives_per_image"] >= 1
    assert 0 < numbers["mean_iou_of_positives"] < 1


def test_training_picture():
    model = make_ssd(vis_period=1)
    with EventStorage(0) as storage:
        model(batch())
        assert len(storage._vis_data) == 1


def test_float16_trains():
    torch.manual_seed(0)
    model = make_ssd()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model(batch())
    assert all(x.dtype == torch.float32 and x.isfinite() for x in losses.values())


def test_qfl_is_one_line_in_the_config():
    softmax, qfl = (
        model_zoo.get_config(f"ablations/table1b/ssd512_{name}.py").model
        for name in ("softmax", "qfl")
    )
    assert {k for k in softmax if softmax[k] != qfl[k]} == {"cls_loss"}
    model = small(qfl)
    assert model.head.cls_logits[0].out_channels == 4 * 80
    bias = model.head.cls_logits[0].bias
    torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, 0.01))
    assert small(softmax).head.cls_logits[0].out_channels == 4 * 81


def small(cfg):
    cfg.backbone.bottom_up.width = 2
    return instantiate(cfg)


def test_the_numbers_of_the_published_model():
    model = small(model_zoo.get_config("COCO-Detection/ssd512_VGG_16.py").model)
    settings = (model.test_score_thresh, model.test_topk_candidates, model.test_nms_thresh)
    assert settings == (0.02, 1000, 0.45)
    assert model.max_detections_per_image == 200


@pytest.mark.parametrize("size", [300, 512])
def test_yacs_is_the_lazy_config(size):
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "SSD"
    cfg.MODEL.BACKBONE.NAME = "build_ssd_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.SSD.INPUT_SIZE = size
    cfg.MODEL.VGG.WIDTH = 2
    cfg.TEST.DETECTIONS_PER_IMAGE = 200
    model = build_model(cfg)
    lazy = small(model_zoo.get_config(f"COCO-Detection/ssd{size}_VGG_16.py").model)
    shapes, expected = (
        {name: tuple(x.shape) for name, x in m.state_dict().items()} for m in (model, lazy)
    )
    assert shapes == expected
    sides = [64, 32, 16, 8, 4, 2, 1] if size == 512 else [38, 19, 10, 5, 3, 1]
    maps = [torch.zeros(1, 1, side, side) for side in sides]
    assert torch.equal(model.anchor_generator(maps).boxes, lazy.anchor_generator(maps).boxes)
    for name in ("test_score_thresh", "test_topk_candidates", "test_nms_thresh"):
        assert getattr(model, name) == getattr(lazy, name)
    assert all(p.requires_grad for p in model.parameters())


def test_yacs_refuses_what_nothing_reads():
    cfg = get_cfg()
    add_gfocal_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "SSD"
    cfg.MODEL.BACKBONE.NAME = "build_ssd_backbone"
    cfg.MODEL.VGG.WIDTH = 2
    cfg.MODEL.SSD.QFL_BETA = 1.5
    with pytest.raises(ValueError, match=r"MODEL\.SSD\.QFL_BETA is 1\.5.*'softmax' nothing reads"):
        build_model(cfg)
    cfg.MODEL.SSD.CLS_LOSS = "qfl"
    assert build_model(cfg).cls_loss.beta == 1.5
    cfg.MODEL.SSD.INPUT_SIZE = 400
    with pytest.raises(ValueError, match=r"MODEL\.SSD\.INPUT_SIZE is 400; expected one of"):
        build_model(cfg)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"num_classes": 0}, ValueError, "num_classes is 0"),
        ({"smooth_l1_beta": -1.0}, ValueError, "smooth_l1_beta is -1"),
        ({"postprocess": lambda *_: []}, TypeError, "expected an NMSPostProcess"),
        (
            {"anchor_generator": PriorGenerator(sizes=[(8, 8)], aspect_ratios=[[]], strides=[8])},
            ValueError,
            r"strides \[8\]; expected those of the backbone's maps \['p3', 'p4', 'p5'\]",
        ),
        ({"test_score_thresh": [0.1, 0.2]}, ValueError, "expected one for each of 3 classes"),
    ],
)
def test_parts_that_do_not_fit(kwargs, error, message):
    with pytest.raises(error, match=message):
        make_ssd(**kwargs)


def test_a_head_of_other_levels():
    with pytest.raises(ValueError, match="in_channels of 1 levels, num_priors of 2"):
        SSDHead(in_channels=[8], num_priors=[4, 6], num_channels=3, initialize=INITIALIZE)


def test_the_order_of_the_heads_channels():
    """Cells first, then the shapes of a location, then their channels."""
    head = SSDHead(in_channels=[1], num_priors=[2], num_channels=3, initialize=INITIALIZE)
    for conv in (*head.cls_logits, *head.deltas):
        torch.nn.init.zeros_(conv.weight)
    head.cls_logits[0].bias.data = torch.arange(6.0)
    cls_logits, deltas = head([torch.zeros(1, 1, 1, 2)])
    assert cls_logits.tolist() == [[[0, 1, 2], [3, 4, 5]] * 2]
    assert deltas.shape == (1, 4, 4)
