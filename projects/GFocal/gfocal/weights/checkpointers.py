"""Detectron2's checkpointer, which here reads files safely and refuses weights that do not fit."""

import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer

from .convert import convert_imagenet_state_dict
from .fit import refuse_incompatible
from .reading import load_weights_only, named_tensors, refuse_exported

__all__ = ["GFLCheckpointer", "StrictCheckpointer", "WeightsOnlyCheckpointer", "check_weights"]

_BACKBONE = "backbone.bottom_up."
_NETWORKS = (_BACKBONE, "backbone.net.")  # below an FPN; below ViTDet's SimpleFeaturePyramid
# What a classifier's file may lack: deformable offsets and relative positions, which start at 0,
# constants, and the norms of Swin's and MViT's maps.
_UNTRAINED = re.compile(
    r".*\.conv2_offset\..*|.*\.rel_pos_[hw]|.*\.relative_position_index|(norm\d|scale\d_norm)\.\w+"
)
_STAGES = re.compile(r"res\d|s\d|layers|blocks")  # they have more blocks in a deeper network
_NOT_IN_CLASSIFIER = {
    f"{_BACKBONE}{layer}.{part}" for layer in ("conv6", "conv7") for part in ("weight", "bias")
}


class WeightsOnlyCheckpointer(DetectionCheckpointer):
    """A DetectionCheckpointer that runs no code of a ``.pth``, with every version of PyTorch.

    (``.pkl`` is Python's own format, and that of Detectron2's weights. Load only files that you
    trust.) If a file lacks the statistics of a batch norm, they count as missing.

    Raises:
        ValueError: on loading, if the file holds anything but named weights, or a part of the model
            refuses its weights. The message names the file, also that of a subclass.
    """

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Loads a file, as Detectron2's checkpointer does."""
        try:
            return super().load(path, *args, **kwargs)
        except ValueError as error:
            if str(path) in str(error):
                raise
            raise ValueError(f"{path}: {error}") from error
        except RuntimeError as error:
            if not str(error).startswith("Error(s) in loading state_dict"):
                raise
            raise ValueError(f"{path}: {error}") from error  # e.g. other bins

    def _load_file(self, filename: str) -> dict[str, Any]:
        # Current main also reads options from a URL, and that is kept. Detectron2 0.5 does nothing
        # but read a .pth. torch.load cannot be replaced there: it is called in a base class.
        replaced = hasattr(DetectionCheckpointer, "_torch_load")
        theirs = replaced or filename.endswith((".pkl", ".pyth"))
        try:
            checkpoint = super()._load_file(filename) if theirs else self._torch_load(filename)
        except (OSError, ValueError):
            raise
        except Exception as error:  # a pickle of anything, or a damaged one
            raise ValueError(
                f"{filename} is not a dict of weights, or is damaged "
                f"({type(error).__name__}: {error})"
            ) from error
        named_tensors(filename, checkpoint, "model")
        return checkpoint

    def _torch_load(self, f: str) -> dict[str, Any]:
        """Reads a ``.pth``; current main calls this method instead of torch.load."""
        checkpoint = load_weights_only(f)
        weights = checkpoint.get("state_dict", checkpoint)
        if isinstance(weights, Mapping) and any(str(k).startswith("bbox_head.") for k in weights):
            raise ValueError(f"{f} is a detector of mmdetection; see tools/convert_mmdet.py")
        return checkpoint if "model" in checkpoint else {"model": weights}

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        names = {name.removeprefix("module.") for name in checkpoint["model"]}
        incompatible = super()._load_model(checkpoint)
        # Detectron2's FrozenBatchNorm2d makes up missing statistics, mean 0 and variance 1. That is
        # right for Caffe2's pickles only, which have none.
        by_ends = checkpoint.get("matching_heuristics", False)
        if not by_ends or any(name.endswith(".running_mean") for name in names):
            missing = incompatible.missing_keys
            missing += [
                name
                for name in self.model.state_dict()
                if name.endswith((".running_mean", ".running_var"))
                and not _is_in(name, names, by_ends)
                and name not in missing
            ]
        return incompatible


class StrictCheckpointer(WeightsOnlyCheckpointer):
    """A DetectionCheckpointer that refuses a file of another model: a file that leaves a part of
    the model unloaded, or that has a part which the model lacks."""

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        refuse_incompatible(
            incompatible.missing_keys, incompatible.incorrect_shapes, incompatible.unexpected_keys
        )

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resumes or loads, as Detectron2's checkpointer does.

        Raises:
            FileNotFoundError: last_checkpoint names a file that is not there.
            ValueError: the checkpoint is of another model.
        """
        if resume and self.has_checkpoint():
            last = self.get_checkpoint_file()
            if "://" not in last and not os.path.isfile(last):
                raise FileNotFoundError(
                    f"{self.save_dir}/last_checkpoint names {last!r}, which is not there; write "
                    "another checkpoint's name into it, or remove it to start anew"
                )
        return super().resume_or_load(path, resume=resume)


class GFLCheckpointer(WeightsOnlyCheckpointer):
    """A DetectionCheckpointer that can also start a backbone from a classifier's ``.pth``.

    It reads checkpoints, Detectron2's pickles, and the files of torchvision's ResNet, ResNeXt and
    VGG-16 and of the models that mmdetection starts from; it knows these by the names of their
    weights. Such a file, a pickle of a backbone, or one with ``?matching_heuristics=True`` (on
    Detectron2's main) must fill all of ``backbone.bottom_up``, or ViTDet's ``backbone.net``, except
    what no classifier has: deformable offsets, relative positions, norms of the maps. No block of a
    stage may be left over. From a detector's file, the weights that fit are loaded, as for
    fine-tuning with other classes.

    Raises:
        ValueError: on loading, if nothing fits, if a backbone's file is of another network, if the
            file is a detector of mmdetection, if its distributions have as many bins as the model's
            and other ones, or if a ``.pth`` needs to run code to be read.
    """

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint = super()._load_file(filename)
        model = checkpoint["model"]
        names = {"conv1.weight", "stem.0.weight"} & set(model)
        ours = self.model.state_dict()
        is_resnet = names and "layer1.0.conv1.weight" in model
        is_vgg = "features.0.weight" in model
        if (is_resnet and f"{_BACKBONE}stem.conv1.weight" in ours) or (
            is_vgg and f"{_BACKBONE}conv1_1.weight" in ours
        ):
            return {"model": convert_imagenet_state_dict(model), "backbone_only": True}
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        # For _log_incompatible_keys, which does not get the checkpoint.
        self._backbone_only = checkpoint.pop("backbone_only", False) or checkpoint.get(
            "matching_heuristics", False
        )
        return super()._load_model(checkpoint)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        self._refuse_if_nothing_fits(incompatible)
        if self._backbone_only:
            self._refuse_another_backbone(incompatible)
            self.logger.info("Loaded the backbone's network; the other layers start untrained")
        else:
            _refuse_other_bins(incompatible.missing_keys)
            super()._log_incompatible_keys(incompatible)

    def _refuse_if_nothing_fits(self, incompatible: Any) -> None:
        expected = {name: tuple(value.shape) for name, value in self.model.named_parameters()}
        if expected.keys() <= set(incompatible.missing_keys):
            shapes = {name: got for name, got, _ in incompatible.incorrect_shapes}
            found = {**shapes, **dict.fromkeys(incompatible.unexpected_keys, "")}
            raise ValueError(
                f"none of the weights fits the model. They are {_first(found)}; expected "
                f"{_first(expected)}. Weights of another network go into a backbone of that "
                "network; timm's are read by TimmBackbone(name=..., weights=FILE), see "
                "docs/extend.md"
            )

    def _refuse_another_backbone(self, incompatible: Any) -> None:
        own = list(self.model.state_dict())
        prefix = next((x for x in _NETWORKS if any(k.startswith(x) for k in own)), _BACKBONE)
        # The rest is not expected in the file, nor are a VGG-16's two layers that a classifier does
        # not have.
        untrained = _NOT_IN_CLASSIFIER & set(incompatible.missing_keys)
        missing = [
            key
            for key in incompatible.missing_keys
            if key.startswith(prefix)
            and not _UNTRAINED.fullmatch(key.removeprefix(prefix))
            and not (untrained == _NOT_IN_CLASSIFIER and key in untrained)
        ]
        # A deeper network's file would fill this one. Stages that this network lacks do not count,
        # nor do the masks of Swin's attention, which are made anew.
        parts = {key.removeprefix(prefix).split(".")[0] for key in own if key.startswith(prefix)}
        stages = {part for part in parts if _STAGES.fullmatch(part)}
        unexpected = [
            key
            for key in incompatible.unexpected_keys
            if key.removeprefix(prefix).split(".")[0] in stages and not key.endswith(".attn_mask")
        ]
        refuse_incompatible(missing, incompatible.incorrect_shapes, unexpected)


def check_weights(path: str) -> str:
    """Returns the path of a weight file if it is a URL or exists.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no checkpoint, but a file of ``gfocal export``.
    """
    refuse_exported(path)
    if path and "://" not in path and not os.path.isfile(path.split("?")[0]):
        raise FileNotFoundError(f"no weight file {path!r} (working directory: {os.getcwd()})")
    return path


def _is_in(name: str, names: Collection[str], by_ends: bool) -> bool:
    """Whether a weight is among names, or an end of it, as Detectron2's heuristics find it."""
    parts = name.split(".")
    return any(".".join(parts[i:]) in names for i in range(len(parts) if by_ends else 1))


def _refuse_other_bins(missing: Collection[str]) -> None:
    """Raises ValueError if the layer of the distributions was loaded without their bins: a file
    with the paper's bins has none."""
    for name in missing:
        logits = name.replace(".box_representation.bins", ".box_logits.weight")
        if logits != name and logits not in missing:
            raise ValueError(
                f"{name}: missing in the file, so its bins are 0, d, 2d, ..., and {logits} means "
                "nothing with the model's. Expected the file's bins, or another number of them: "
                "then this layer starts untrained"
            )


def _first(weights: Mapping[str, Any], limit: int = 5) -> str:
    """Names of weights, and their shapes."""
    names = [f"{name} {shape}".rstrip() for name, shape in weights.items()]
    more = f", ... ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
