"""COCO 2017 with large-scale jitter, 64 images a batch, and objects of other images pasted in.

``dataloader.size`` is the side of the square training images, pixels. ``dataloader.jitter`` has the
bounds of the scale: at 1 an image fits into the square; a larger one is cropped, and a smaller one
padded. ``dataloader.mix`` is one of ``dataloader.mixes``:

- "copy_paste": objects of another image. The dataset must have masks; the model gets none.
- "mosaic": parts of four images. Boxes are enough.
- "none".
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from gfocal.data.copy_paste import CopyPaste
from gfocal.data.mosaic import Mosaic
from gfocal.data.samplers import RepeatFactors

from .data import dataloader

dataloader.size = 1024
dataloader.jitter = [0.1, 2.0]
dataloader.mix = "copy_paste"
dataloader.mixes = dict(
    copy_paste=dict(masks=True, steps=[L(CopyPaste)(prob=0.5, min_visible=0.1, keep_masks=False)]),
    mosaic=dict(masks=False, steps=[L(Mosaic)(prob=0.5, min_visible=0.1)]),
    none=dict(masks=False, steps=[]),
)

dataloader.train.mapper.update(
    augmentations=[
        L(T.ResizeScale)(
            min_scale="${dataloader.jitter.0}",
            max_scale="${dataloader.jitter.1}",
            target_height="${dataloader.size}",
            target_width="${dataloader.size}",
        ),
        L(T.FixedSizeCrop)(crop_size=["${dataloader.size}", "${dataloader.size}"]),
        L(T.RandomFlip)(horizontal=True),
    ],
    use_instance_mask="${dataloader.mixes.${dataloader.mix}.masks}",
    instance_mask_format="bitmask",
    recompute_boxes="${dataloader.train.mapper.use_instance_mask}",  # a crop's are tight again
)
dataloader.train.mixing = "${dataloader.mixes.${dataloader.mix}.steps}"
dataloader.train.sampler = L(RepeatFactors)(repeat_thresh=0.0)  # LVIS: 0.001
dataloader.train.aspect_ratio_grouping = False  # all are square
dataloader.train.total_batch_size = 64
