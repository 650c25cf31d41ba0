import math

import pytest
import torch

from gfocal.config import model_zoo
from gfocal.modeling.priors import PERCENTS, PriorGenerator, prior_sizes


def test_published_sizes():
    assert prior_sizes(512, 7, PERCENTS[512]) == [
        (20, 51),
        (51, 133),
        (133, 215),
        (215, 296),
        (296, 378),
        (378, 460),
        (460, 542),
    ]
    assert prior_sizes(300, 6, PERCENTS[300]) == [
        (21, 45),
        (45, 99),
        (99, 153),
        (153, 207),
        (207, 261),
        (261, 315),
    ]


@pytest.mark.parametrize("percents", [(10, 10, 90), (4, 90, 10), (4, 10, 12)])
def test_sizes_that_do_not_increase(percents):
    with pytest.raises(ValueError, match="percents are"):
        prior_sizes(512, 7, percents)


def maps(*sides):
    return [torch.zeros(1, 1, height, width) for height, width in sides]


@pytest.mark.parametrize(("size", "count"), [(512, 24564), (300, 8732)])
def test_number_of_published_priors(size, count):
    cfg = model_zoo.get_config(f"COCO-Detection/ssd{size}_VGG_16.py").model.anchor_generator
    generator = PriorGenerator(
        sizes=cfg.sizes,
        aspect_ratios=cfg.aspect_ratios,
        strides=[8, 16, 32, 64, 100, 300] if size == 300 else [8 * 2**i for i in range(7)],
    )
    sides = {512: (64, 32, 16, 8, 4, 2, 1), 300: (38, 19, 10, 5, 3, 1)}[size]
    priors = generator(maps(*((n, n) for n in sides)))
    assert priors.boxes.shape == (count, 4)
    assert sum(priors.level_sizes) == count


def test_shapes_and_places_by_hand():
    """A level of 1 x 2 cells of stride 10 with the sizes 8 and 18, whose mean is sqrt(8 * 18) = 12,
    and one of a single cell."""
    generator = PriorGenerator(sizes=[(8, 18), (16, 16)], aspect_ratios=[[4], []], strides=[10, 20])
    assert generator.num_anchors == [4, 2]
    priors = generator(maps((1, 2), (1, 1)))
    first = [[1, 1, 9, 9], [-1, -1, 11, 11], [-3, 3, 13, 7], [3, -3, 7, 13]]
    second = [[x0 + 10, y0, x1 + 10, y1] for x0, y0, x1, y1 in first]
    last = [[2, 2, 18, 18]] * 2
    torch.testing.assert_close(priors.boxes, torch.tensor([*first, *second, *last]).float())
    assert priors.level_sizes == [8, 2]
    torch.testing.assert_close(priors.centers[:5, 0], torch.tensor([5.0, 5, 5, 5, 15]))


def test_rows_come_before_columns():
    generator = PriorGenerator(sizes=[(4, 4)], aspect_ratios=[[]], strides=[8])
    centers = generator(maps((2, 3))).centers[::2]
    assert centers.tolist() == [[x, y] for y in (4, 12) for x in (4, 12, 20)]


def test_aspect_ratio_keeps_the_area():
    boxes = PriorGenerator(sizes=[(30, 60)], aspect_ratios=[[2, 3]], strides=[8])(
        maps((1, 1))
    ).boxes
    widths, heights = (boxes[:, 2:] - boxes[:, :2]).unbind(dim=1)
    expected = [1, 1, 2, 1 / 2, 3, 1 / 3]
    torch.testing.assert_close(widths / heights, torch.tensor(expected))
    areas = torch.full((6,), 900.0)
    areas[1] = 1800
    torch.testing.assert_close(widths * heights, areas)
    assert math.isclose(widths[1].item(), math.sqrt(1800), rel_tol=1e-6)


def test_padding():
    """A cell belongs to an image if its top left corner does."""
    generator = PriorGenerator(sizes=[(4, 4)], aspect_ratios=[[]], strides=[8])
    inside = generator(maps((2, 3))).inside([(16, 24), (8, 17), (9, 16)])
    assert inside.shape == (3, 12)
    cells = inside[:, ::2].tolist()
    assert cells == [
        [True] * 6,
        [True, True, True, False, False, False],
        [True, True, False, True, True, False],
    ]
    assert torch.equal(inside[:, ::2], inside[:, 1::2])


def test_in_float64_and_not_in_the_state_dict():
    generator = PriorGenerator(sizes=[(4, 4)], aspect_ratios=[[2]], strides=[8])
    assert generator.state_dict() == {}
    assert generator.double()(maps((1, 1))).boxes.dtype == torch.float64


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sizes": [(4, 8)] * 2}, "sizes of 2 levels, aspect_ratios of 1 and strides of 1"),
        ({"sizes": [(8, 4)]}, "level 0 has sizes"),
        ({"aspect_ratios": [[0]]}, r"aspect ratios \[0\]"),
    ],
)
def test_wrong_arguments(kwargs, message):
    defaults = {"sizes": [(4, 8)], "aspect_ratios": [[2]], "strides": [8]}
    with pytest.raises(ValueError, match=message):
        PriorGenerator(**{**defaults, **kwargs})


def test_other_numbers_of_maps():
    generator = PriorGenerator(sizes=[(4, 4)], aspect_ratios=[[2]], strides=[8])
    with pytest.raises(ValueError, match="got 2 feature maps; expected 1"):
        generator(maps((1, 1), (1, 1)))
