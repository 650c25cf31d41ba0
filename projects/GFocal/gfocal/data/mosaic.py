"""Mosaic (YOLOv4, https://arxiv.org/abs/2004.10934, Sec. 3.3)."""

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from .mixing import Another, Mapped, check_mapped, check_prob, check_share, cut, moved_boxes

__all__ = ["Mosaic"]


class Mosaic:
    """Puts parts of four images together, around a random point. Boxes are enough for it.

    The answer has the size of the first image. A tile gets a window of its image: where that is
    larger, a random one with the centre of a random object inside; where it is smaller, the rest
    has one colour. Nothing is resized; that is the mapper's. (Published mosaics resize.)

    Boxes and regions of crowds are clipped to the window, masks too. An object of which the tile
    shows too little is dropped.

    Args:
        prob: of a mosaic. Otherwise the image stays as it is.
        center_range: bounds of the random point, as shares of height and width.
        min_visible: an object is dropped if a smaller share of it is visible: of its box, with
            masks of its pixels.
        fill: colour where there is no image.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        prob: float = 0.5,
        *,
        center_range: Sequence[float] = (0.25, 0.75),
        min_visible: float = 0.1,
        fill: float = 128.0,
    ):
        self.prob = check_prob(self, prob)
        self.min_visible = check_share(self, "min_visible", min_visible)
        if len(center_range) != 2 or not 0 < center_range[0] <= center_range[1] < 1:
            raise ValueError(
                f"Mosaic: center_range is {list(center_range)}; expected (low, high) in (0, 1)"
            )
        self.center_range = float(center_range[0]), float(center_range[1])
        self.fill = fill

    def __call__(self, mapped: Mapped, another: Another) -> Mapped:
        """
        Args:
            mapped: an image, as a mapper answers it. It gets the left top tile.
            another: maps a further image of the dataset.

        Returns:
            the mosaic, with the other keys of the first image.

        Raises:
            ValueError: there is what a step cannot move.
        """
        check_mapped(self, mapped)
        if np.random.uniform() >= self.prob:
            return mapped
        images = [mapped, *(another() for _ in range(3))]
        for image in images[1:]:
            check_mapped(self, image)
        size = height, width = mapped["instances"].image_size
        y, x = (int(side * np.random.uniform(*self.center_range)) for side in size)
        tiles = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
        dtype = images[0]["image"].dtype
        for image in images[1:]:
            dtype = torch.promote_types(dtype, image["image"].dtype)
        canvas = torch.full_like(mapped["image"], self.fill, dtype=dtype)
        objects, regions = [], []
        for image, (left, top, right, bottom) in zip(images, tiles):
            window = _window(image["instances"], (bottom - top, right - left))
            x0, y0, x1, y1 = window
            part = image["image"][:, y0:y1, x0:x1]
            canvas[:, top : top + y1 - y0, left : left + x1 - x0] = part
            place = (window, (left, top))
            objects.append(cut(image["instances"], *place, size, self.min_visible))
            if "ignore_regions" in image:
                regions.append(moved_boxes(image["ignore_regions"], *place))
        result = {**mapped, "image": canvas, "instances": Instances.cat(objects)}
        if regions:
            all_regions = Boxes.cat(regions)
            result["ignore_regions"] = all_regions[all_regions.nonempty()]
        return result


def _window(instances: Instances, tile: tuple[int, int]) -> tuple[int, int, int, int]:
    """A window (left, top, right, bottom) of an image for a tile of (height, width)."""
    height, width = instances.image_size
    center = None
    if len(instances):
        center = instances.gt_boxes[np.random.randint(len(instances))].get_centers()[0].tolist()
    starts = []
    for axis, (side, length) in enumerate(((width, tile[1]), (height, tile[0]))):
        low, high = 0, max(side - length, 0)
        if center is not None:
            low = min(max(int(center[axis]) - length + 1, 0), high)
            high = max(min(int(center[axis]), high), low)
        starts.append(np.random.randint(low, high + 1))
    left, top = starts
    return left, top, min(left + tile[1], width), min(top + tile[0], height)
