"""GFLV2 on a dataset of your own, in COCO format, by overrides alone:

    data.train_json=... data.train_images=... data.val_json=... data.val_images=...

Several jsons with the same categories: 'data.train_json=[a.json,b.json]', with one folder of images
or a list of folders. Without data.val_json there is no evaluation.

It is made for some thousand images: it starts from ImageNet weights, and trains about 12 epochs of
6000 images. Set train.max_iter for your number; the schedule follows. To train from scratch, set
train.init_checkpoint="" and model.backbone.bottom_up.freeze_at=0, and use batch norm instead of
FrozenBN.
"""

from detectron2.config import LazyCall as L

from gfocal.data.coco_files import num_classes_of, register_coco_jsons

from ..common.data import dataloader
from ..common.models.gfl import model
from ..common.optim import optimizer
from ..common.schedule import step_schedule
from ..common.train import train

data = dict(
    train_json="",
    train_images="",
    val_json="",
    val_images="",
    num_classes=L(num_classes_of)(json_file="${data.train_json}"),  # or a number
    check=True,  # look at the headers of the images, and whether the boxes are XYWH
    on_invalid="error",  # or "drop": leave out what is wrong in the json, and count it
    min_size=800,  # shorter side in pixels; smaller if
    max_size=1333,  # the longer side would exceed this
    batch_size=8,
    num_workers=2,
)

model.num_classes = "${data.num_classes}"

dataloader.train.dataset.names = L(register_coco_jsons)(
    name="custom_coco_train",
    json_file="${data.train_json}",
    image_root="${data.train_images}",
    num_classes="${model.num_classes}",
    on_invalid="${data.on_invalid}",
    check="${data.check}",
)
dataloader.test.dataset.names = L(register_coco_jsons)(
    name="custom_coco_val",
    json_file="${data.val_json}",
    image_root="${data.val_images}",
    num_classes="${model.num_classes}",
    on_invalid="${data.on_invalid}",
    check="${data.check}",
    same_categories_as="${data.train_json}",
    optional=True,
)
for _loader in (dataloader.train, dataloader.test):
    _loader.mapper.augmentations[0].short_edge_length = "${data.min_size}"
    _loader.mapper.augmentations[0].max_size = "${data.max_size}"
    _loader.num_workers = "${data.num_workers}"
dataloader.train.total_batch_size = "${data.batch_size}"

# The learning rate of COCO is for 16 images a batch.
optimizer.lr = 0.005
optimizer.max_grad_norm = 35.0
lr_multiplier = step_schedule(steps=[6000, 8000], max_iter=9000, warmup_iters=500)
train.max_iter = 9000
train.eval_period = 1000
train.checkpointer = dict(period=1000, max_to_keep=5)
train.output_dir = "./output/custom_coco"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
