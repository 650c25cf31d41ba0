"""GFLV2, small, on a dataset of your own: the rows of this folder differ by the detector alone.

data.train_json=... data.train_images=... data.val_json=... data.val_images=...
"""

from ...quick_start.small_coco import data, dataloader, lr_multiplier, model, optimizer, train

train.output_dir = "./output/reliability_gflv2"
