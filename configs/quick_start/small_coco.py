"""The small detector of shapes_gflv2.py on a dataset of your own, in COCO format: from scratch in
minutes on 2 CPU cores. Takes the overrides of custom_coco.py:

    data.train_json=... data.train_images=... data.val_json=... data.val_images=...

Images are small (shorter side 192 pixels), and so must be the number of kinds of things to find.
"""

from .custom_coco import data, dataloader
from .shapes_gflv2 import lr_multiplier, model, optimizer, train

data.min_size = 192
data.max_size = 344
data.batch_size = 8
model.num_classes = "${data.num_classes}"
train.output_dir = "./output/small_coco"
