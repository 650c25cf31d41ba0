"""From a dataset dict to the model's input: boxes, masks on request, errors that name the image.

Units: boxes are XYXY, in pixels of the image after the augmentations.
"""

import copy
from collections.abc import Sequence
from typing import Any

import detectron2.data.transforms as T
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image

from .._moved import moved_names
from .images import read_pixels
from .masks import check_mask_format, transformed_masks
from .pipelines import yacs_augmentations
from .placement import apply_regions, content_of
from .transforms import CenterPad

__all__ = ["DetectionMapper", "prepared", "resize_of", "without_empty_resize"]

__getattr__ = moved_names(__name__)


class DetectionMapper(DatasetMapper):
    """Detectron2's DatasetMapper for detectors of boxes and masks, with these differences:

    - 16-bit images are scaled to 8 bits (PIL clips them to white), see :func:`.read_image`;
    - a shorter side that ResizeShortestEdge or ResizeScale would round to 0 pixels keeps one;
    - the model can get crowds, as regions without background;
    - augmentations can ask for the boxes of a training image, and drop some of them, as those of
      :mod:`gfocal.data.transforms` do; after :class:`.CenterPad` the model gets the border;
    - every failure is one error that names the image.

    Args:
        is_train: keep the annotations.
        augmentations: augmentations or deterministic transforms.
        image_format: order of the channels, see :func:`.read_image`.
        crowds: "drop": annotations with iscrowd=1 are left out. "ignore": their boxes become the
            image's "ignore_regions", in which :class:`gfocal.detectors.GFL` has no background. (The
            validation loss uses the test mapper's ``crowds``.) In yacs INPUT.CROWDS.
        use_instance_mask: the instances get gt_masks too. Then the dataset must be loaded with
            masks, see :func:`gfocal.data.detection_dataset_dicts`. In yacs MODEL.MASK_ON.
        instance_mask_format: "polygon" or "bitmask". In yacs INPUT.MASK_FORMAT.
        recompute_boxes: boxes are tight around the masks after the augmentations. In yacs this is
            so with masks and random crops, as in Detectron2.

    Raises:
        ValueError: ``crowds`` or ``instance_mask_format`` is another one, a CenterPad is not the
            last augmentation, boxes are to be recomputed without masks, or a yacs config asks for
            keypoints or proposals, or for unknown augmentations.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str,
        crowds: str = "drop",
        use_instance_mask: bool = False,
        instance_mask_format: str = "polygon",
        recompute_boxes: bool = False,
    ):
        check_crowds(crowds)
        check_mask_format(instance_mask_format)
        if recompute_boxes and not use_instance_mask:
            raise ValueError("recompute_boxes is True; expected use_instance_mask=True with it")
        super().__init__(
            is_train,
            augmentations=prepared(augmentations),
            image_format=image_format,
            use_instance_mask=use_instance_mask,
            instance_mask_format=instance_mask_format,
            recompute_boxes=recompute_boxes,
        )
        self.crowds = crowds

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        for key in ("KEYPOINT_ON", "LOAD_PROPOSALS"):
            if cfg.MODEL[key]:
                raise ValueError(
                    f"MODEL.{key} is {cfg.MODEL[key]}, but DetectionMapper makes boxes and masks; "
                    "expected False, or Detectron2's DatasetMapper"
                )
        return {
            "is_train": is_train,
            "augmentations": yacs_augmentations(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "crowds": cfg.INPUT.get("CROWDS", "drop"),
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "recompute_boxes": cfg.MODEL.MASK_ON and cfg.INPUT.CROP.ENABLED and is_train,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            dataset_dict: of one image, in Detectron2's format; it is not changed.

        Returns:
            the dict without "annotations", with "image" (C, H, W) uint8 (float32 after an
            augmentation that makes it so), "height" and "width" of the file and, in training,
            "instances" with gt_boxes and gt_classes (with masks also gt_masks; and
            "ignore_regions", ``Boxes``, with ``crowds="ignore"``). After a CenterPad also "border"
            and "content_size", see :func:`.content_of`.

        Raises:
            FileNotFoundError: there is no such image file.
            ValueError: any other failure. (A loader process can send its message too.)
        """
        try:
            return self._map(dataset_dict)
        except Exception as error:
            name = dataset_dict.get("file_name", "no file name")
            where = f"image {dataset_dict.get('image_id', 'without id')} ({name})"
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(f"{where}: {error}") from error
            raise ValueError(f"{where}: {type(error).__name__}: {error}") from error

    def _map(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        result = {k: v for k, v in dataset_dict.items() if k != "annotations"}
        image = read_pixels(dataset_dict["file_name"], self.image_format)
        utils.check_image_size(result, image)
        objects: list[dict[str, Any]] = []
        crowds: list[dict[str, Any]] = []
        has_annotations = self.is_train and "annotations" in dataset_dict
        for annotation in dataset_dict["annotations"] if has_annotations else ():
            (crowds if annotation.get("iscrowd", 0) else objects).append(annotation)
        boxes = _boxes(objects)
        # A copy: transforms may change it in place. None without boxes: transforms of others may
        # not expect an empty array.
        aug_input = T.AugInput(image, boxes=boxes.copy() if objects else None)
        transforms = self.augmentations(aug_input)
        image = aug_input.image
        result["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
        result.update(content_of(transforms))
        if not has_annotations:
            return result

        size = image.shape[:2]
        instances = Instances(size)
        instances.gt_boxes = _clipped(transforms.apply_box(boxes) if objects else boxes, size)
        classes = [int(annotation["category_id"]) for annotation in objects]
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        if self.use_instance_mask:
            masks = transformed_masks(objects, transforms, size, self.instance_mask_format)
            instances.gt_masks = masks
            if self.recompute_boxes:
                has_area = instances.gt_boxes.nonempty()  # an augmentation drops others
                boxes = _clipped(masks.get_bounding_boxes().tensor.numpy(), size).tensor
                instances.gt_boxes = Boxes(boxes * has_area[:, None])
        result["instances"] = utils.filter_empty_instances(instances)
        if self.crowds == "ignore":
            boxes = _boxes(crowds)
            regions = _clipped(apply_regions(transforms, boxes) if crowds else boxes, size)
            result["ignore_regions"] = regions[regions.nonempty()]
        return result


def prepared(
    augmentations: Sequence[T.Augmentation | T.Transform],
) -> list[T.Augmentation | T.Transform]:
    """The augmentations as a mapper and a Predictor apply them, see :func:`without_empty_resize`.

    Raises:
        ValueError: a CenterPad is not the last.
    """
    if any(isinstance(x, CenterPad) for x in augmentations[:-1]):
        names = [type(x).__name__ for x in augmentations]
        raise ValueError(f"the augmentations are {names}; expected one CenterPad, as the last")
    return without_empty_resize(augmentations)


def without_empty_resize(
    augmentations: Sequence[T.Augmentation | T.Transform],
) -> list[T.Augmentation | T.Transform]:
    """The augmentations; a ResizeShortestEdge or ResizeScale leaves a side of at least one pixel.

    Detectron2's shrinks a side to 0 pixels to keep 5000 x 1 below max_size=1333. (One inside
    another augmentation, such as RandomApply, is left as it is.)
    """
    kinds = (T.ResizeShortestEdge, T.ResizeScale)
    return [_NonEmptyResize(x) if isinstance(x, kinds) else x for x in augmentations]


def resize_of(augmentations: Sequence[T.Augmentation | T.Transform]) -> dict[str, Any] | None:
    """The augmentations as numbers, for a file that carries them.

    Returns:
        {"short_edge", "max_size"} in pixels, of one ResizeShortestEdge of one length, which leaves
        a side of at least one pixel; {"height", "width"} of one Resize; {"center_pad": {"multiple",
        "extra", "mean"}} of one CenterPad; {} if nothing is resized; None if they are others.
    """
    if not augmentations:
        return {}
    resize = augmentations[0]
    if isinstance(resize, _NonEmptyResize):
        resize = resize.resize
    if len(augmentations) == 1 and type(resize) is CenterPad:
        numbers = {"multiple": resize.multiple, "extra": resize.extra, "mean": list(resize.mean)}
        return {"center_pad": numbers}
    if len(augmentations) == 1 and type(resize) is T.Resize:
        height, width = map(int, resize.shape)
        bilinear = resize.interp == Image.Resampling.BILINEAR
        return {"height": height, "width": width} if bilinear else None
    if len(augmentations) > 1 or type(resize) is not T.ResizeShortestEdge:
        return None
    edges = {*resize.short_edge_length}
    if edges == {0}:  # Detectron2's way to say that nothing is resized
        return {}
    if len(edges) > 1 or resize.interp != Image.Resampling.BILINEAR:
        return None
    return {"short_edge": int(edges.pop()), "max_size": int(resize.max_size)}


class _NonEmptyResize(T.Augmentation):
    def __init__(self, resize: T.ResizeShortestEdge | T.ResizeScale):
        super().__init__()
        self.resize = resize

    def __repr__(self) -> str:
        return repr(self.resize)

    __str__ = __repr__  # the base class has one of its own

    def get_transform(self, image: np.ndarray) -> T.Transform:
        transform = self.resize.get_transform(image)
        sides = {name: getattr(transform, name, 1) for name in ("new_h", "new_w")}
        if 0 in sides.values():
            transform = copy.copy(transform)
            for name, side in sides.items():
                setattr(transform, name, max(side, 1))
        return transform


def check_crowds(crowds: str) -> None:
    """Raises ValueError unless ``crowds`` is a value that :class:`DetectionMapper` knows."""
    if crowds not in ("drop", "ignore"):
        raise ValueError(
            f'crowds (INPUT.CROWDS in a yacs config) is {crowds!r}; expected "drop" or "ignore"'
        )


def _boxes(annotations: Sequence[dict[str, Any]]) -> np.ndarray:
    """Boxes (N, 4) of annotations, XYXY.

    Raises:
        ValueError: a box is not finite. (One without area is none after clipping, as in Detectron2:
            coco_2017_train has some.)
    """
    if not annotations:
        return np.zeros((0, 4))
    rows = [_upright(x) for x in annotations]
    # As floats: Detectron2's ResizeTransform truncates boxes of integers.
    boxes = np.array(rows, dtype=np.float64)
    finite = np.isfinite(boxes).all(axis=1)
    if not finite.all():
        raise ValueError(f"box {annotations[int(finite.argmin())]['bbox']} is not finite")
    return boxes


def _upright(annotation: dict[str, Any]) -> Sequence[float]:
    """The box of an annotation, XYXY; of a rotated one that around it."""
    box, mode = annotation["bbox"], annotation["bbox_mode"]
    if mode == BoxMode.XYWHA_ABS:  # of integers Detectron2 would truncate the corners
        box = [float(number) for number in box]
    return BoxMode.convert(box, mode, BoxMode.XYXY_ABS)


def _clipped(boxes: np.ndarray, size: tuple[int, int]) -> Boxes:
    """Boxes (N, 4) clipped to an image of ``size`` (height, width)."""
    return Boxes(np.minimum(boxes.clip(min=0), [*size[::-1], *size[::-1]]))
