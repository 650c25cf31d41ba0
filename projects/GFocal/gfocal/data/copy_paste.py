"""Simple copy-paste (https://arxiv.org/abs/2012.07177)."""

import numpy as np
import torch
from detectron2.structures import Instances

from .mixing import Another, Mapped, check_mapped, check_prob, check_share, covered, cut, pixels_of

__all__ = ["CopyPaste"]


class CopyPaste:
    """Pastes objects of another image onto an image, at their place and in their size (Sec. 3).

    A random number of the other image's objects is drawn, one at least, and so many of them. The
    pixels of their masks take the place of the image's, without blending. Both images come from the
    same mapper. So that resizes and mirrors both. The left top corners lie on each other; what is
    beyond the image is cut off.

    Where an object is hidden, its mask and box are those of the visible part. One that is hidden
    too much is dropped. Regions of crowds stay, and those of the other image are not pasted.

    Args:
        prob: of pasting onto an image.
        min_visible: an object is dropped if a smaller share of its pixels is visible. (The paper
            drops what is hidden completely: 0.)
        keep_masks: whether the images still have gt_masks afterwards. A detector of boxes does not
            need them, and they take memory and time on their way from the loader's processes.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, prob: float = 0.5, *, min_visible: float = 0.1, keep_masks: bool = True):
        self.prob = check_prob(self, prob)
        self.min_visible = check_share(self, "min_visible", min_visible)
        self.keep_masks = keep_masks

    def __call__(self, mapped: Mapped, another: Another) -> Mapped:
        """
        Args:
            mapped: an image, as a mapper answers it, with gt_masks of either format.
            another: maps a further image of the dataset.

        Returns:
            the image with the pasted objects behind its own in "instances".

        Raises:
            ValueError: there are no masks, or there is what a step cannot move.
        """
        self._check(mapped)
        result = dict(mapped)
        if np.random.uniform() < self.prob:
            self._paste(result, another())
        if not self.keep_masks:
            result["instances"] = _without_masks(result["instances"])
        return result

    def _paste(self, mapped: Mapped, source: Mapped) -> None:
        self._check(source)
        objects: Instances = mapped["instances"]
        size = objects.image_size
        height, width = (min(x, y) for x, y in zip(size, source["instances"].image_size))
        window = (0, 0, width, height)
        pasted = cut(source["instances"], window, (0, 0), size, self.min_visible)
        pixels = pixels_of(pasted)
        seen = pixels.flatten(1).any(dim=1).nonzero().flatten().numpy()
        if len(seen) == 0:
            return
        count = np.random.randint(1, len(seen) + 1)
        chosen = torch.from_numpy(np.sort(np.random.choice(seen, count, replace=False)))
        cover = pixels[chosen].any(dim=0)
        kept = covered(objects, cover, self.min_visible)
        mapped["instances"] = Instances.cat([kept, pasted[chosen]])
        dtype = torch.promote_types(mapped["image"].dtype, source["image"].dtype)
        image = mapped["image"].to(dtype, copy=True)
        image[:, cover] = source["image"][:, :height, :width][:, cover[:height, :width]].to(dtype)
        mapped["image"] = image

    def _check(self, mapped: Mapped) -> None:
        check_mapped(self, mapped)
        if not mapped["instances"].has("gt_masks"):
            raise ValueError(
                f"CopyPaste: image {mapped.get('image_id', 'without id')} "
                f"({mapped.get('file_name', 'no file name')}) has no gt_masks; expected "
                "dataloader.train.mapper.use_instance_mask=True, or Mosaic for a dataset of boxes"
            )


def _without_masks(instances: Instances) -> Instances:
    fields = {k: v for k, v in instances.get_fields().items() if k != "gt_masks"}
    return Instances(instances.image_size, **fields)
