"""Detectron2's dataset dicts of a COCO json."""

import logging
import os
from typing import Any

from detectron2.structures import BoxMode

from .coco_json import CocoJson
from .masks import usable_mask

__all__ = ["dataset_dicts"]


def dataset_dicts(
    data: CocoJson, json_file: str, image_root: str, masks: bool
) -> list[dict[str, Any]]:
    """Detectron2's dataset dicts, with boxes, and "segmentation" where there are masks.

    Args:
        data: of the json.
        json_file: for the log.
        image_root: the folder that the file names are relative to.
        masks: whether to keep the masks.
    """
    classes = {category_id: index for index, category_id in enumerate(data.category_ids)}
    dicts = {
        image["id"]: {
            "file_name": os.path.join(image_root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": [],
        }
        for image in data.images
    }
    for annotation in data.annotations:
        entry = {
            "bbox": annotation["bbox"],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": classes[annotation["category_id"]],
            "iscrowd": annotation["iscrowd"],
        }
        image = dicts[annotation["image_id"]]
        if masks:
            size = image["height"], image["width"]
            if (mask := usable_mask(annotation.get("segmentation"), *size)) is not None:
                entry["segmentation"] = mask
        image["annotations"].append(entry)
    logging.getLogger(__name__).info(
        f"{json_file}: {len(data.images)} images, {len(data.annotations)} annotations, "
        f"{len(classes)} categories"
    )
    return list(dicts.values())
