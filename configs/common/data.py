"""COCO 2017: shorter side 800, longer at most 1333, horizontal flip, 16 images a batch."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader

from gfocal.data.coco import detection_dataset_dicts
from gfocal.data.coco_evaluation import dataset_evaluator
from gfocal.data.loader import build_train_loader
from gfocal.data.mapper import DetectionMapper

dataloader = dict(
    train=L(build_train_loader)(
        dataset=L(detection_dataset_dicts)(
            names="coco_2017_train",
            check="${oc.select:data.check,true}",  # look at the headers of the images first
            crowds="${oc.select:dataloader.train.mapper.crowds,drop}",  # another mapper has none
            masks="${oc.select:dataloader.train.mapper.use_instance_mask,false}",
        ),
        mapper=L(DetectionMapper)(
            is_train=True,
            augmentations=[
                L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333),
                L(T.RandomFlip)(horizontal=True),
            ],
            image_format="${model.input_format}",
            crowds="drop",  # or "ignore": no background inside the boxes of iscrowd annotations
        ),
        total_batch_size=16,
        num_workers=4,
    ),
    test=L(build_detection_test_loader)(
        dataset=L(detection_dataset_dicts)(
            names="coco_2017_val",
            filter_empty=False,
            check="${oc.select:data.check,true}",
            masks="${oc.select:dataloader.test.mapper.use_instance_mask,false}",
        ),
        mapper=L(DetectionMapper)(
            is_train=False,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
            image_format="${model.input_format}",
        ),
        num_workers=4,
    ),
    evaluator=L(dataset_evaluator)(
        dataset_name="${..test.dataset.names}",
        output_dir="${train.output_dir}/inference",
    ),
)
