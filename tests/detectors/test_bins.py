"""GFL with other bins than the paper's, end to end."""

import io

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from gfocal import model_zoo
from gfocal.inspect import detect_with_distributions
from gfocal.modeling.quality import DistributionGuidedQualityPredictor, uniform
from gfocal.modeling.recipes import use
from gfocal.modeling.representations import GeneralDistribution
from gfocal.weights import GFLCheckpointer, StrictCheckpointer
from tests.helpers.tiny import make_gfl, make_head, make_input

BINS = {
    "geometric": GeneralDistribution.geometric,
    "signed": lambda: GeneralDistribution.signed(-2, 14),
    "of one's own": lambda: GeneralDistribution(bins=[-1.0, 0, 0.1, 0.4, 2, 9, 40]),
}


@pytest.fixture(params=BINS)
def detector(request):
    torch.manual_seed(0)
    head = make_head(
        quality_predictor=DistributionGuidedQualityPredictor(),
        box_representation=BINS[request.param](),
    )
    torch.nn.init.normal_(head.box_logits.weight, std=1.0)
    return make_gfl(head=head, test_score_thresh=0.0)


def test_it_trains_towards_its_boxes(detector):
    batch = [make_input(64, 96, [[3.0, 2, 63, 58], [60.0, 5, 90, 60]]), make_input(64, 64)]
    detector.criterion.box_weight = uniform
    optimizer = torch.optim.Adam(detector.parameters(), lr=0.01)
    values = []
    with EventStorage():
        for _ in range(12):
            losses = detector(batch)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            optimizer.step()
            values.append(losses["loss_dfl"].item())
    assert values[-1] < values[0]
    assert all(p.grad.isfinite().all() for p in detector.parameters())


@torch.no_grad()
def test_all_that_reads_bins_reads_these(detector):
    """Boxes, standard deviations and distributions of the detections are those of the bins."""
    detector.eval()
    inputs = [{"image": torch.rand(3, 96, 128) * 255}]
    (output,) = detect_with_distributions(detector, inputs)
    found = output["instances"]
    (plain,) = detector(inputs)
    torch.testing.assert_close(found.pred_boxes.tensor, plain["instances"].pred_boxes.tensor)
    probs, edges = found.pred_box_distributions, found.bin_edges
    sides = (probs * edges).sum(-1)
    limits = torch.tensor([128.0, 96, 128, 96])
    clipped = torch.minimum(sides.clamp(min=0), limits)
    torch.testing.assert_close(clipped, found.pred_boxes.tensor, rtol=1e-4, atol=1e-2)
    variance = (probs * (edges - sides[..., None]).square()).sum(-1)
    torch.testing.assert_close(variance.sqrt(), plain["instances"].pred_box_stds)
    bins = detector.head.box_representation.bins
    steps = (edges[:, 2:] - edges[:, 2:, :1]) / (bins - bins[0])[None, None]
    assert set(steps[..., 1:].round(decimals=2).unique().tolist()) <= {8.0, 16.0}


def test_weights_stay_with_their_bins(detector, tmp_path):
    StrictCheckpointer(detector, str(tmp_path)).save("model")
    file = str(tmp_path / "model.pth")
    representation = detector.head.box_representation
    bins = representation.bins.clone()
    detector.head.box_representation = GeneralDistribution(bins=bins.tolist())
    StrictCheckpointer(detector).load(file)
    detector.head.box_representation = GeneralDistribution(bins=(bins + 1).tolist())
    with pytest.raises(ValueError, match=r"model.pth: (.|\n)*bins: \[.*\] in the file, \[.* in"):
        StrictCheckpointer(detector).load(file)
    detector.head.box_representation = GeneralDistribution(reg_max=len(bins) - 1)
    with pytest.raises(ValueError, match=r"box_representation.bins: .* in the file, \[0, 1, .* in"):
        StrictCheckpointer(detector).load(file)
    StrictCheckpointer(detector, str(tmp_path)).save("published")
    detector.head.box_representation = representation
    with pytest.raises(ValueError, match="box_representation.bins: missing in the file"):
        StrictCheckpointer(detector).load(str(tmp_path / "published.pth"))


def test_fine_tuning_with_other_bins(detector, tmp_path):
    """The layer of the distributions starts untrained where its shape tells, and a file is refused
    where it would be loaded."""
    head = detector.head
    published = make_gfl(head=make_head(box_representation=GeneralDistribution(3)))
    files = [str(tmp_path / f"{name}.pth") for name in ("bins", "published")]
    StrictCheckpointer(detector, str(tmp_path)).save("bins")
    StrictCheckpointer(published, str(tmp_path)).save("published")
    for model, file in ((published, files[0]), (detector, files[1])):
        bins = model.head.box_representation.bins.clone()
        untrained = model.head.box_logits.weight.clone()
        torch.nn.init.zeros_(model.head.cls_logits.bias)
        GFLCheckpointer(model).load(file)
        assert torch.equal(model.head.box_representation.bins, bins)
        assert torch.equal(model.head.box_logits.weight, untrained)
        assert model.head.cls_logits.bias.all()
    head.box_representation = GeneralDistribution(head.box_representation.reg_max)
    StrictCheckpointer(detector, str(tmp_path)).save("published")
    places = (head.box_representation.bins + 1).tolist()
    head.box_representation = GeneralDistribution(bins=places)
    with pytest.raises(ValueError, match="box_logits.weight means nothing with the model's"):
        GFLCheckpointer(detector).load(files[1])


def test_a_config_with_bins_is_saved_and_read(tmp_path):
    """A constructor of bins is a LazyCall as others are."""
    cfg = model_zoo.get_config("quick_start/shapes_gflv2.py")
    use(cfg.model, box="geometric_dfl")
    cfg.model.head.box_representation.first = 0.5
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    read = LazyConfig.load(str(tmp_path / "config.yaml"))
    bins = instantiate(read.model.head).box_representation.bins
    assert torch.equal(bins, GeneralDistribution.geometric(16, 0.5, 64.0).bins)
    cfg.model.head.box_representation = L(GeneralDistribution)(bins=[-1, 0, 2.5, 9])
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    read = LazyConfig.load(str(tmp_path / "config.yaml"))
    assert instantiate(read.model.head).box_representation.bins.tolist() == [-1, 0, 2.5, 9]
    assert OmegaConf.is_config(read)


def test_a_model_with_bins_is_pickled(detector):
    file = io.BytesIO()
    torch.save(detector.head.box_representation, file)
    file.seek(0)
    read = torch.load(file, weights_only=False)
    assert torch.equal(read.bins, detector.head.box_representation.bins)
