"""The heat maps of CornerNet and CenterNet."""

import math

import pytest
import torch

from gfocal.benchmarks import straightforward
from gfocal.modeling import heatmaps
from gfocal.modeling.heatmaps import (
    centernet_radius,
    corner_radius,
    gaussian_focal_loss,
    heatmap_peaks,
    paint_gaussians,
)


def three_radii(w, h, m, divisors):
    """CornerNet's three quadratic equations a r^2 + b r + c = 0: one corner inside and one outside,
    both inside, both outside. ``divisors`` of the roots are 2a, or 2 in CenterNet's code."""
    s, wh = w + h, w * h
    first = (s - (s**2 - 4 * wh * (1 - m) / (1 + m)).sqrt()) / divisors[0]
    second = (2 * s - (4 * s**2 - 16 * (1 - m) * wh).sqrt()) / divisors[1]
    third = (-2 * m * s + (4 * m**2 * s**2 + 16 * m * (1 - m) * wh).sqrt()) / divisors[2]
    return torch.stack([first, second, third])


def three_radii_of_centernet(w, h, m):
    """The same with its signs: the first two add the root."""
    s, wh = w + h, w * h
    first = (s + (s**2 - 4 * wh * (1 - m) / (1 + m)).sqrt()) / 2
    second = (2 * s + (4 * s**2 - 16 * (1 - m) * wh).sqrt()) / 2
    third = (-2 * m * s + (4 * m**2 * s**2 + 16 * m * (1 - m) * wh).sqrt()) / 2
    return torch.stack([first, second, third])


@pytest.mark.parametrize("m", [0.3, 0.5, 0.7])
def test_radii_are_the_smallest_of_three(m):
    w, h = 0.1 * 3000 ** torch.rand(2, 100_000, generator=torch.manual_seed(0)).double()
    original = three_radii(w, h, m, (2, 8, 8 * m)).amin(dim=0)
    torch.testing.assert_close(corner_radius(w, h, m), original, rtol=1e-8, atol=0)
    original = three_radii_of_centernet(w, h, m).amin(dim=0)
    torch.testing.assert_close(centernet_radius(w, h, m), original, rtol=1e-8, atol=0)


def test_radii_of_a_square():
    """40 x 40 cells: 20 (1 - sqrt(.3)) = 9.046; 56 (sqrt(1 + .3 / .7) - 1) = 10.93. A box whose
    corners are moved inwards by the first has the overlap .3."""
    side = torch.tensor([40.0], dtype=torch.float64)
    assert corner_radius(side, side).item() == pytest.approx(20 * (1 - math.sqrt(0.3)))
    assert centernet_radius(side, side).item() == pytest.approx(56 * (math.sqrt(1 / 0.7) - 1))
    w, h = torch.tensor([[30.0], [7.0]], dtype=torch.float64)
    r = corner_radius(w, h, 0.6)
    assert ((w - 2 * r) * (h - 2 * r) / (w * h)).item() == pytest.approx(0.6)


def objects(*rows):
    """(image, class, x, y, radius) of each."""
    table = torch.tensor(rows, dtype=torch.int64).view(-1, 5)
    return table[:, 0], table[:, 1], table[:, 2:4], table[:, 4]


def test_one_gaussian():
    """Radius 1: sigma 1/2, so exp(-2) beside the cell and exp(-4) at the corners; nothing two
    cells away. Radius 0: one cell."""
    heat = paint_gaussians((1, 2, 4, 5), *objects((0, 1, 2, 1, 1), (0, 0, 4, 3, 0)), torch.float64)
    one, side, corner = 1.0, math.exp(-2), math.exp(-4)
    expected = torch.zeros(1, 2, 4, 5, dtype=torch.float64)
    expected[0, 1, :3, 1:4] = torch.tensor(
        [[corner, side, corner], [side, one, side], [corner, side, corner]]
    )
    expected[0, 0, 3, 4] = 1
    torch.testing.assert_close(heat, expected, rtol=1e-6, atol=0)
    assert heat[0, 1, 1, 2] == 1 and heat.eq(1).sum() == 2


def test_what_overlaps_and_what_leaves_the_map():
    """In one row: a Gaussian of radius 1 at 0, cut off by the border, and one of radius 4
    (sigma 3/2) at 3."""
    heat = paint_gaussians((1, 1, 1, 9), *objects((0, 0, 0, 0, 1), (0, 0, 3, 0, 4)), torch.float64)
    wide = [math.exp(-((x - 3) ** 2) / 4.5) for x in range(9)]
    expected = [1.0, max(math.exp(-2), wide[1]), *wide[2:8], 0.0]
    assert heat.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("piece", [1, 40, 2**18])
@pytest.mark.parametrize("shape", [(2, 3, 20, 31), (1, 1, 1, 1), (1, 2, 50, 2)])
def test_a_loop_over_the_objects(shape, piece, monkeypatch):
    monkeypatch.setattr(heatmaps, "_PIECE", piece)
    n, k, h, w = shape
    generator = torch.manual_seed(0)
    random = [torch.randint(x, (60,), generator=generator) for x in (n, k, w, h, 30)]
    table = torch.stack(random, dim=1)
    for count in (0, 1, 60):
        arguments = shape, *objects(*table[:count].tolist()), torch.float64
        heat = paint_gaussians(*arguments)
        expected = straightforward.painted_heatmaps(*arguments)
        torch.testing.assert_close(heat, expected, rtol=1e-12, atol=1e-15)
        assert torch.equal(heat == 1, expected == 1)
    assert paint_gaussians(*arguments[:-1]).dtype == torch.float32


def test_memory_does_not_grow_with_the_objects():
    """500 objects as large as the map; all windows at once would be 500 * 256 * 256 cells, 260 MB
    of float64."""
    table = [(0, 0, i % 256, i // 2, 400) for i in range(500)]
    arguments = (1, 1, 256, 256), *objects(*table), torch.float64
    with torch.profiler.profile(profile_memory=True) as profiler:
        heat = paint_gaussians(*arguments)
    largest = max(event.cpu_memory_usage for event in profiler.events())
    assert 0 < largest < 10 * 2**20
    assert heat.eq(1).sum() == 500


@pytest.mark.parametrize(
    "row", [(1, 0, 0, 0, 1), (0, 2, 0, 0, 1), (0, 0, 9, 0, 1), (0, 0, 0, -1, 1), (0, 0, 0, 0, -1)]
)
def test_an_object_outside(row):
    with pytest.raises(ValueError, match=r"an object of image .*\(1, 2, 8, 9\)"):
        paint_gaussians((1, 2, 8, 9), *objects((0, 0, 1, 1, 3), row))


def published_loss(logits, targets, alpha=2, beta=4):
    """As mmdetection has it, on probabilities."""
    p = logits.sigmoid()
    positive = -(p + 1e-12).log() * (1 - p) ** alpha * (targets == 1)
    return positive - (1 - p + 1e-12).log() * p**alpha * (1 - targets) ** beta


def test_loss_by_hand():
    """p = 1/2 everywhere: 1/4 ln 2 at an object; (1 - 1/2)^4 as much at a target of 1/2; 1/4 ln 2
    at 0. And p = 3/4 at an object: (1/4)^2 ln(4/3)."""
    logits = torch.tensor([0.0, 0.0, 0.0, math.log(3)])
    targets = torch.tensor([1.0, 0.5, 0.0, 1.0])
    quarter = math.log(2) / 4
    expected = [quarter, quarter / 16, quarter, math.log(4 / 3) / 16]
    assert gaussian_focal_loss(logits, targets).tolist() == pytest.approx(expected)
    assert gaussian_focal_loss(logits, targets, reduction="sum").item() == pytest.approx(
        sum(expected)
    )


def test_loss_is_the_published_one():
    generator = torch.manual_seed(0)
    logits = torch.empty(2, 3, 8, 9, dtype=torch.float64).uniform_(-7, 7, generator=generator)
    targets = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
    targets[:, :, ::4, ::3] = 1
    for alpha, beta in ((2, 4), (1, 3)):
        found = gaussian_focal_loss(logits, targets, alpha, beta)
        torch.testing.assert_close(
            found, published_loss(logits, targets, alpha, beta), rtol=1e-8, atol=1e-12
        )


def test_gradient_of_the_loss():
    generator = torch.manual_seed(0)
    logits = torch.randn(4, 5, generator=generator, dtype=torch.float64) * 3
    targets = torch.rand(4, 5, generator=generator, dtype=torch.float64)
    targets[0] = 1
    assert torch.autograd.gradcheck(
        lambda x: gaussian_focal_loss(x, targets), (logits.requires_grad_(),)
    )


def test_loss_of_extreme_logits():
    """At an object the loss of a logit of -1000 is 1000; elsewhere that of 1000. Gradients are
    finite. Half precision is computed in float32."""
    logits = torch.tensor([-1000.0, 1000.0, 1000.0, -1000.0], requires_grad=True)
    targets = torch.tensor([1.0, 0.0, 1.0, 0.0])
    losses = gaussian_focal_loss(logits, targets)
    assert losses.tolist() == [1000.0, 1000.0, 0.0, 0.0]
    (grad,) = torch.autograd.grad(losses.sum(), logits)
    assert grad.tolist() == [-1.0, 1.0, 0.0, 0.0]
    assert gaussian_focal_loss(logits.half(), targets.half()).dtype == torch.float32


def test_loss_of_other_shapes():
    with pytest.raises(ValueError, match="expected the same"):
        gaussian_focal_loss(torch.zeros(2, 3), torch.zeros(3))


def test_peaks():
    """The largest of each neighbourhood; both cells of a plateau, at the border too."""
    scores = torch.tensor(
        [[0.9, 0.1, 0.2, 0.2], [0.1, 0.1, 0.1, 0.1], [0.3, 0.4, 0.1, 0.1], [0.4, 0.1, 0.1, 0.5]]
    )[None, None]
    expected = torch.tensor([[0.9, 0, 0.2, 0.2], [0, 0, 0, 0], [0, 0.4, 0, 0], [0.4, 0, 0, 0.5]])[
        None, None
    ]
    assert torch.equal(heatmap_peaks(scores), expected)
    assert torch.equal(heatmap_peaks(scores, 1), scores)
    assert heatmap_peaks(scores, 7).count_nonzero() == 1
    with pytest.raises(ValueError, match="kernel is 2"):
        heatmap_peaks(scores, 2)
