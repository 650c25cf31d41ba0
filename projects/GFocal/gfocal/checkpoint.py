"""Weights of other code bases: mmdetection's names and ours, and what a backbone starts from."""

import math
import os
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from fvcore.common.checkpoint import Checkpointer
from torch import Tensor

from .config import model_zoo

__all__ = [
    "GFLCheckpointer",
    "WeightsOnlyCheckpointer",
    "check_state_dict",
    "convert_checkpoint_to_mmdet",
    "convert_imagenet_state_dict",
    "convert_mmdet_checkpoint",
    "convert_mmdet_state_dict",
    "expected_state_dict",
    "find_configs",
    "load_mmdet_checkpoint",
    "load_weights_only",
    "to_mmdet_state_dict",
]

# The mapping, read in both directions: (mmdetection's name, ours). "#" is a number and "*" the last
# part of a name (weight, bias, running_mean, ...), the same on both sides.
_ROWS = [
    ("neck.fpn_convs.3.conv.*", "backbone.top_block.p6.*"),
    ("neck.fpn_convs.4.conv.*", "backbone.top_block.p7.*"),
    ("bbox_head.cls_convs.#.conv.*", "head.cls_tower.#.*"),
    ("bbox_head.cls_convs.#.gn.*", "head.cls_tower.#.norm.*"),
    ("bbox_head.reg_convs.#.conv.*", "head.box_tower.#.*"),
    ("bbox_head.reg_convs.#.gn.*", "head.box_tower.#.norm.*"),
    ("bbox_head.gfl_cls.*", "head.cls_logits.*"),
    ("bbox_head.gfl_reg.*", "head.box_logits.*"),
    ("bbox_head.scales.#.scale", "head.scales.#"),
    ("bbox_head.reg_conf.0.*", "head.quality_predictor.fc1.*"),
    ("bbox_head.reg_conf.2.*", "head.quality_predictor.fc2.*"),
]
for _i in range(3):
    _ROWS += [
        (f"neck.lateral_convs.{_i}.conv.*", f"backbone.fpn_lateral{_i + 3}.*"),
        (f"neck.fpn_convs.{_i}.conv.*", f"backbone.fpn_output{_i + 3}.*"),
    ]
# The shortcut of a ResNet is (convolution, norm), that of a Res2Net (pooling, convolution, norm).
_RESNET_ROWS = [
    ("backbone.conv1.*", "backbone.bottom_up.stem.conv1.*"),
    ("backbone.bn1.*", "backbone.bottom_up.stem.conv1.norm.*"),
]
_RES2NET_ROWS = [
    ("backbone.stem.0.*", "backbone.bottom_up.stem.conv1.*"),
    ("backbone.stem.1.*", "backbone.bottom_up.stem.conv1.norm.*"),
    ("backbone.stem.3.*", "backbone.bottom_up.stem.conv2.*"),
    ("backbone.stem.4.*", "backbone.bottom_up.stem.conv2.norm.*"),
    ("backbone.stem.6.*", "backbone.bottom_up.stem.conv3.*"),
    ("backbone.stem.7.*", "backbone.bottom_up.stem.conv3.norm.*"),
]
for _i in range(1, 5):
    _theirs, _ours = f"backbone.layer{_i}.#", f"backbone.bottom_up.res{_i + 1}.#"
    _both = [
        (f"{_theirs}.conv#.*", f"{_ours}.conv#.*"),
        (f"{_theirs}.bn#.*", f"{_ours}.conv#.norm.*"),
    ]
    _RESNET_ROWS += [
        *_both,
        (f"{_theirs}.conv2.conv_offset.*", f"{_ours}.conv2_offset.*"),
        (f"{_theirs}.downsample.0.*", f"{_ours}.shortcut.*"),
        (f"{_theirs}.downsample.1.*", f"{_ours}.shortcut.norm.*"),
    ]
    _RES2NET_ROWS += [
        *_both,
        (f"{_theirs}.convs.#.*", f"{_ours}.conv2.#.*"),
        (f"{_theirs}.bns.#.*", f"{_ours}.conv2.#.norm.*"),
        (f"{_theirs}.convs.#.conv_offset.*", f"{_ours}.conv2_offset.#.*"),
        (f"{_theirs}.downsample.1.*", f"{_ours}.shortcut.*"),
        (f"{_theirs}.downsample.2.*", f"{_ours}.shortcut.norm.*"),
    ]
# What mmdetection called differently before mmcv 1.0; read only.
_OLD_ROWS = [
    (f"backbone.layer{i}.#.conv2_offset.*", f"backbone.bottom_up.res{i + 1}.#.conv2_offset.*")
    for i in range(1, 5)
]
# All that a conversion leaves out, beside the extra class row of v2: a counter that frozen batch
# norm does not keep and the constant bins 0..n. (An ImageNet model also has its classifier, fc.)
_DROPPED = re.compile(r".*\.num_batches_tracked|bbox_head\.integral\.project")
# What a file may lack or have in excess: that counter, and the anchors, constants that Detectron2
# 0.5 kept in the state dict.
_OPTIONAL = re.compile(r".*\.num_batches_tracked|.*\bcell_anchors\..*")


def convert_mmdet_state_dict(
    state_dict: Mapping[str, Tensor], num_classes: int | None = None
) -> dict[str, Tensor]:
    """Rename (and where needed reshape) the weights of mmdetection's or the official GFL models.

    Covers ResNet, ResNeXt and Res2Net v1d, with deformable stages or without, FPN and the head of
    v1 and v2. Dropped are ``num_batches_tracked``, ``integral.project`` and the last class row of a
    v2 head, and nothing else: the official v2 head has num_classes + 1 rows, of which the last
    never meant anything.

    Args:
        state_dict: name -> tensor.
        num_classes: keep so many class rows. By default all of them for v1 and all but the last
            for v2 (whose ``reg_conf`` tells it from v1).

    Returns:
        State dict of :class:`gfocal.meta_arch.GFL` with the backbones of the zoo's configs. The
        tensors share storage with the input's.

    Raises:
        ValueError: if keys have no counterpart here or share one (all are listed), or the class
            rows are not ``num_classes`` (in v2 also one more).
    """
    converted, unmapped = _convert(state_dict, num_classes)
    _refuse(unmapped, "not of a GFL model of mmdetection")
    return converted


def convert_mmdet_checkpoint(
    path: str | os.PathLike, num_classes: int | None = None, model_cfg: Any = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Read and convert a checkpoint of mmdetection or the official code, and check it for holes.

    Args:
        path: see :func:`load_mmdet_checkpoint`.
        num_classes: see :func:`convert_mmdet_state_dict`.
        model_cfg: ``model`` of the LazyConfig that the weights are for. By default one of the
            published models'.

    Returns:
        The converted state dict, and the names of the published configs it is for ([] with a
        ``model_cfg``).

    Raises:
        FileNotFoundError, ValueError: see there; and if a key has no counterpart, is missing or has
            another shape than in the (nearest published) model; the message lists all of them.
    """
    converted, unmapped = _convert(load_mmdet_checkpoint(path), num_classes)
    names, problems = _fit(converted, model_cfg)
    problems.update({name: "has no counterpart here" for name in unmapped})
    rows = _backbone_rows(converted, "backbone.bottom_up.stem.conv2.") + _ROWS
    theirs, _ = _rename(problems, [(ours, theirs) for theirs, ours in rows])
    _refuse_misfit(path, {theirs.get(k, k): v for k, v in problems.items()}, names)
    return converted, names


def convert_checkpoint_to_mmdet(
    path: str | os.PathLike, model_cfg: Any = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Read a checkpoint of ours, check it for holes, and rename its weights to mmdetection's names.

    Args:
        path: a file with a ``model``, or a state dict itself.
        model_cfg: see :func:`convert_mmdet_checkpoint`.

    Returns:
        The state dict of :func:`to_mmdet_state_dict`, and the names of the published configs it is
        for ([] with a ``model_cfg``).

    Raises:
        FileNotFoundError, ValueError: as :func:`convert_mmdet_checkpoint`.
    """
    state_dict = _named_tensors(path, load_weights_only(path), "model")
    names, problems = _fit(state_dict, model_cfg)
    _refuse_misfit(path, problems, names)
    return to_mmdet_state_dict(state_dict), names


def _fit(state_dict: Mapping[str, Tensor], model_cfg: Any) -> tuple[list[str], dict[str, str]]:
    """:func:`find_configs`, or the same of one model: [], and what is wrong."""
    if model_cfg is None:
        return find_configs(state_dict)
    return [], check_state_dict(state_dict, expected_state_dict(model_cfg))


def _refuse_misfit(path: str | os.PathLike, problems: dict[str, str], names: list[str]) -> None:
    if problems:
        whose = "the config's model"
        if names:
            whose = (
                "a published model (another needs its config), the nearest of which is " + names[0]
            )
        lines = [f"{name}: {problem}" for name, problem in problems.items()]
        raise ValueError(
            f"the weights in {path} are not those of {whose}:" + _listed(lines, len(lines))
        )


def _convert(
    state_dict: Mapping[str, Tensor], num_classes: int | None
) -> tuple[dict[str, Tensor], list[str]]:
    """The converted state dict, and the keys that no row maps."""
    rows = _backbone_rows(state_dict, "backbone.stem.") + _ROWS + _OLD_ROWS
    names = [name for name in state_dict if not _DROPPED.fullmatch(name)]
    renamed, unmapped = _rename(names, rows)
    converted = {ours: torch.as_tensor(state_dict[theirs]) for theirs, ours in renamed.items()}
    is_v2 = any(name.startswith("head.quality_predictor.") for name in converted)
    for name in _DGQP_WEIGHTS:
        if name in converted and converted[name].shape[2:] == (1, 1):
            converted[name] = converted[name].flatten(start_dim=1)  # a linear layer here
    for name in _CLASS_ROWS:
        if name in converted:
            converted[name] = _class_rows(name, converted[name], num_classes, is_v2)
    return converted, unmapped


def to_mmdet_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`convert_mmdet_state_dict`: our names to the official code's.

    What the official model has beyond ours is added: the constant ``integral.project`` and for v2
    the extra class row, with weights of 0 and the bias of a class score of 0.01. (The official
    inference takes that row for a class; so it stays below the score threshold.)

    Args:
        state_dict: of a GFL model.

    Raises:
        ValueError: if keys have no counterpart there (all are listed).
    """
    rows = _backbone_rows(state_dict, "backbone.bottom_up.stem.conv2.") + _ROWS
    names = [name for name in state_dict if not _OPTIONAL.fullmatch(name)]
    inverse = [(ours, theirs) for theirs, ours in rows]
    renamed, unmapped = _rename(names, inverse)
    _refuse(unmapped, "not of a GFL model that the official code has")
    converted = {theirs: state_dict[ours] for ours, theirs in renamed.items()}
    for name in ("bbox_head.reg_conf.0.weight", "bbox_head.reg_conf.2.weight"):
        if name in converted:
            converted[name] = converted[name][:, :, None, None]
    if "bbox_head.reg_conf.0.weight" in converted:
        for name, fill in (("weight", 0.0), ("bias", -math.log(99))):
            name = f"bbox_head.gfl_cls.{name}"
            if name in converted:
                extra = torch.full_like(converted[name][:1], fill)
                converted[name] = torch.cat([converted[name], extra])
    box_logits = converted.get("bbox_head.gfl_reg.weight")
    if box_logits is not None:
        num_bins = len(box_logits) // 4
        converted["bbox_head.integral.project"] = torch.arange(num_bins, dtype=box_logits.dtype)
    return converted


def convert_imagenet_state_dict(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a classifier into those of ``backbone.bottom_up``.

    Args:
        state_dict: of torchvision's ResNet or ResNeXt, or of the ImageNet models that mmdetection
            starts from (ResNeXt, Res2Net v1d), whose names are the same. The classifier ``fc`` and
            ``num_batches_tracked`` are dropped.

    Raises:
        ValueError: if keys have no counterpart here (all are listed).
    """
    rows = _backbone_rows(state_dict, "stem.")
    names = [n for n in state_dict if not n.startswith("fc.") and not _DROPPED.fullmatch(n)]
    renamed, unmapped = _rename([f"backbone.{n}" for n in names], rows)
    _refuse(unmapped, "not of a ResNet, ResNeXt or Res2Net")
    return {ours: state_dict[name] for name, ours in zip(names, renamed.values())}


def load_mmdet_checkpoint(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint of mmdetection 2.x or 3.x, without running code of it.

    Args:
        path: a file with a ``state_dict``, or a state dict itself.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not such a file, needs to run code to be read, or is of mmdetection
            1.x, whose anchors are centred elsewhere.
    """
    checkpoint = load_weights_only(path)
    meta = checkpoint.get("meta")
    state_dict = _named_tensors(path, checkpoint, "state_dict")
    version = str(meta.get("mmdet_version", "")) if isinstance(meta, Mapping) else ""
    sign = None
    if re.match(r"[01]\.", version):
        sign = f"its meta says mmdet_version {version}"
    elif any("distribution_project" in name for name in state_dict):
        sign = "it has bbox_head.distribution_project, as only the first GFocal repository has"
    if sign:
        raise ValueError(
            f"{path} is of mmdetection 1.x ({sign}). Its anchors are centred at (stride - 1) / 2 + "
            "i * stride pixels and not at i * stride, so its boxes would be off by half a stride; "
            "take the checkpoint of the same model that mmdetection 2.x or 3.x published"
        )
    if all(name.startswith("module.") for name in state_dict):
        state_dict = {name[len("module.") :]: value for name, value in state_dict.items()}
    return state_dict


def _named_tensors(
    path: str | os.PathLike, checkpoint: dict[str, Any], key: str
) -> dict[str, Tensor]:
    """The state dict under a checkpoint's ``key``, or the checkpoint if it has no such key."""
    weights = checkpoint.get(key, checkpoint)
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError(
            f"{path} has no {key} to read: {reprlib.repr(weights)}; expected a dict of tensors"
        )
    tensor = (Tensor, np.ndarray)  # a pickle of Detectron2 has arrays
    named = (isinstance(k, str) and isinstance(v, tensor) for k, v in weights.items())
    others = [repr(name) for name, good in zip(weights, named) if not good]
    if others:
        raise ValueError(
            f"{path} is not a checkpoint with a {key} of named tensors: it has others, under "
            + ", ".join(others[:10])
        )
    return dict(weights)


def load_weights_only(path: str | os.PathLike) -> dict[str, Any]:
    """``torch.load`` of a dict, refusing whatever would run code.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a checkpoint or needs to run code to be read.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no checkpoint {str(path)!r}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file: whatever the reader stumbles over
        # Until 2.3 and from 2.4 on.
        code = re.search(r"(?:Unsupported class|GLOBAL) ([\w.]+)", str(error))
        if code is None:
            # The rest of PyTorch's message invites to run the code.
            reason = str(error).rpartition("WeightsUnpickler error:")[2].strip()
            reason = re.split(r"\n| In PyTorch 2\.6| Re-running", reason)[0]
            raise ValueError(
                f"{path} is not a PyTorch checkpoint, is damaged, or holds more than weights "
                f"({type(error).__name__}: {reason})"
            ) from error
        raise ValueError(
            f"{path} can only be read by running code that it names ({code[1]}), which is refused. "
            "If you trust the file, save its weights alone where it was made: torch.save({KEY: "
            "torch.load(FILE, weights_only=False)[KEY]}, NEW_FILE), where KEY is "
            '"state_dict" in a file of mmdetection and "model" in one of Detectron2'
        ) from error
    if isinstance(checkpoint, Mapping):
        return dict(checkpoint)
    raise ValueError(f"{path} holds a {type(checkpoint).__name__}; expected a dict of weights")


def check_state_dict(
    state_dict: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, str]:
    """What is wrong with a state dict: {key: problem}, {} where nothing is.

    Args:
        state_dict: name -> tensor.
        expected: the state dict of a model (of any device, "meta" too).
    """
    problems = {}
    for name in dict.fromkeys([*expected, *state_dict]):
        if _OPTIONAL.fullmatch(name):
            continue
        if name not in state_dict:
            problems[name] = "missing in the file"
        elif name not in expected:
            problems[name] = "not in the model"
        elif state_dict[name].shape != expected[name].shape:
            got, want = (tuple(x[name].shape) for x in (state_dict, expected))
            problems[name] = f"{got} in the file, {want} in the model"
    return problems


def find_configs(state_dict: Mapping[str, Tensor]) -> tuple[list[str], dict[str, str]]:
    """The published models (LazyConfigs of the zoo) that a state dict of ours is of.

    Returns:
        The names of the configs that it is nearest to, and what is wrong with it as one of them, as
        :func:`check_state_dict` says it: {} where it is complete.
    """
    bias = state_dict.get("head.cls_logits.bias")
    fits: dict[str, dict[str, str]] = {}
    for name in model_zoo.list_configs():
        if name.endswith(".py"):
            cfg = model_zoo.get_config(name).model
            cfg.num_classes = 80 if bias is None else len(bias)
            fits[name] = check_state_dict(state_dict, expected_state_dict(cfg))
    fewest = min(map(len, fits.values()))
    nearest = [name for name, problems in fits.items() if len(problems) == fewest]
    return nearest, fits[nearest[0]]


def expected_state_dict(model_cfg: Any) -> dict[str, Tensor]:
    """Names and shapes of a model's weights, without memory: tensors on the meta device.

    Args:
        model_cfg: ``model`` of a LazyConfig.
    """
    with torch.device("meta"):
        return instantiate(model_cfg).state_dict()


class _WeightsOnly(Checkpointer):
    """How DetectionCheckpointer, before it in the order of the bases, reads a ``.pth``."""

    def _load_file(self, f: str) -> dict[str, Any]:
        checkpoint = load_weights_only(f)
        weights = checkpoint.get("state_dict", checkpoint)
        if isinstance(weights, Mapping) and any(str(k).startswith("bbox_head.") for k in weights):
            raise ValueError(f"{f} is a detector of mmdetection; see tools/convert_mmdet.py")
        return checkpoint if "model" in checkpoint else {"model": weights}


class WeightsOnlyCheckpointer(DetectionCheckpointer, _WeightsOnly):
    """A DetectionCheckpointer that runs no code of a ``.pth``, with every version of PyTorch.

    (``.pkl`` is Python's own format, which Detectron2's weights are in: only for files you trust.)
    And one that misses the statistics of a batch norm where the file has none.

    Raises:
        ValueError: on loading, if the file holds anything but named weights. It names the file, as
            all that a subclass refuses.
    """

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As Detectron2's."""
        try:
            return super().load(path, *args, **kwargs)
        except ValueError as error:
            if str(path) in str(error):
                raise
            raise ValueError(f"{path}: {error}") from error

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            checkpoint = super()._load_file(filename)
        except (OSError, ValueError):
            raise
        except Exception as error:  # a pickle of whatever, or a damaged one
            raise ValueError(
                f"{filename} is not a dict of weights, or is damaged "
                f"({type(error).__name__}: {error})"
            ) from error
        _named_tensors(filename, checkpoint, "model")
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        names = {name.removeprefix("module.") for name in checkpoint["model"]}
        incompatible = super()._load_model(checkpoint)
        # Detectron2's FrozenBatchNorm2d makes up what is missing, mean 0 and variance 1, and that
        # is right for Caffe2's pickles only.
        if not checkpoint.get("matching_heuristics", False):
            missing = incompatible.missing_keys
            missing += [
                name
                for name in self.model.state_dict()
                if name.endswith((".running_mean", ".running_var"))
                and name not in names.union(missing)
            ]
        return incompatible


class GFLCheckpointer(WeightsOnlyCheckpointer):
    """A DetectionCheckpointer that can also start a backbone from a classifier's ``.pth``.

    Beside checkpoints and Detectron2's pickles it reads the files of torchvision's ResNet and
    ResNeXt and of the models that mmdetection starts from, known by their names. From such a file,
    or a pickle of a backbone, all of ``backbone.bottom_up`` has to come, deformable offsets
    excepted, which start at 0; and no block of a stage may be left over. Of a detector, what fits
    is loaded, as for fine-tuning with other classes.

    Raises:
        ValueError: on loading, if nothing fits, if a backbone's file is of another network, if the
            file is a detector of mmdetection, or if a ``.pth`` needs to run code to be read.
    """

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint = super()._load_file(filename)
        model = checkpoint["model"]
        names = {"conv1.weight", "stem.0.weight"} & set(model)
        ours = "backbone.bottom_up.stem.conv1.weight" in self.model.state_dict()
        if names and "layer1.0.conv1.weight" in model and ours:
            return {"model": convert_imagenet_state_dict(model), "backbone_only": True}
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        self._backbone_only = checkpoint.pop("backbone_only", False) or checkpoint.get(
            "matching_heuristics", False
        )
        return super()._load_model(checkpoint)

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        expected = {name: tuple(value.shape) for name, value in self.model.named_parameters()}
        if expected.keys() <= set(incompatible.missing_keys):
            shapes = {name: got for name, got, _ in incompatible.incorrect_shapes}
            found = {**shapes, **dict.fromkeys(incompatible.unexpected_keys, "")}
            raise ValueError(
                f"none of the weights fits the model. They are {_first(found)}; expected "
                + _first(expected)
            )
        if not self._backbone_only:
            super()._log_incompatible_keys(incompatible)
            return
        # The rest is not expected in the file, and neither are deformable offsets.
        missing = [
            key
            for key in incompatible.missing_keys
            if key.startswith("backbone.bottom_up.") and ".conv2_offset." not in key
        ]
        # A deeper network's would fill this one; stages that this one ends before are left alone.
        prefix = "backbone.bottom_up."
        own = {k.split(".")[2] for k in self.model.state_dict() if k.startswith(prefix + "res")}
        unexpected = [
            key
            for key in incompatible.unexpected_keys
            if key.removeprefix(prefix).split(".")[0] in own
        ]
        refuse_incompatible(missing, incompatible.incorrect_shapes, unexpected)
        self.logger.info("Loaded backbone.bottom_up; the other layers start untrained")


def refuse_incompatible(
    missing: Iterable[str],
    incorrect_shapes: Iterable[tuple[str, Any, Any]],
    unexpected: Iterable[str],
) -> None:
    """Raises ValueError with what Detectron2's checkpointers found incompatible, if that is any."""
    shapes = {key: (tuple(got), tuple(expected)) for key, got, expected in incorrect_shapes}
    # fvcore calls a key of another shape missing as well.
    missing = [key for key in missing if key not in shapes]
    lines = [f"{key}: missing in the file" for key in missing if not _OPTIONAL.fullmatch(key)]
    lines += [f"{k}: {got} in the file, {want} in the model" for k, (got, want) in shapes.items()]
    lines += [f"{key}: not in the model" for key in unexpected if not _OPTIONAL.fullmatch(key)]
    if not lines:
        return
    reason = "the weights are not this model's"
    got, want = shapes.get(_CLASS_ROWS[0], ((), ()))
    if got and shapes.keys() == set(_CLASS_ROWS) and len(lines) == len(shapes):
        reason += f" (the file has {got[0]} classes, num_classes is {want[0]})"
    raise ValueError(f"{reason}:" + _listed(lines))


def _first(weights: Mapping[str, Any], limit: int = 5) -> str:
    """Names of weights, and their shapes."""
    names = [f"{name} {shape}".rstrip() for name, shape in weights.items()]
    more = f", ... ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _listed(lines: list[str], limit: int = 40) -> str:
    """The lines of a message, not more than a reader has use for."""
    more = [f"... and {len(lines) - limit} more"] if len(lines) > limit else []
    return "".join(f"\n  {line}" for line in lines[:limit] + more)


def _backbone_rows(names: Iterable[str], res2net: str) -> list[tuple[str, str]]:
    """Rows of the backbone; ``res2net`` is how names begin that only a Res2Net has."""
    return _RES2NET_ROWS if any(name.startswith(res2net) for name in names) else _RESNET_ROWS


def _rename(names: Iterable[str], rows: list[tuple[str, str]]) -> tuple[dict[str, str], list[str]]:
    """{name: new name} by the first row whose left side matches, and the names that none does."""
    patterns = [
        (
            re.compile(re.escape(left).replace(r"\#", r"(\d+)").replace(r"\*", r"(\w+)")),
            right.replace("#", "{}").replace("*", "{}"),
        )
        for left, right in rows
    ]
    renamed, unmapped = {}, []
    for name in names:
        for pattern, target in patterns:
            match = pattern.fullmatch(name)
            if match:
                renamed[name] = target.format(*match.groups())
                break
        else:
            unmapped.append(name)
    twice = [name for name, count in Counter(renamed.values()).items() if count > 1]
    if twice:
        raise ValueError(f"several keys become the same one: {', '.join(twice)}")
    return renamed, unmapped


def _refuse(unmapped: list[str], reason: str) -> None:
    if unmapped:
        raise ValueError(f"{len(unmapped)} keys are {reason}: " + ", ".join(unmapped))


_CLASS_ROWS = ("head.cls_logits.weight", "head.cls_logits.bias")
_DGQP_WEIGHTS = ("head.quality_predictor.fc1.weight", "head.quality_predictor.fc2.weight")


def _class_rows(name: str, value: Tensor, num_classes: int | None, is_v2: bool) -> Tensor:
    if value.ndim == 0:
        raise ValueError(f"{name} is a single number; expected one row a class")
    rows = len(value)
    keep = rows - int(is_v2) if num_classes is None else num_classes
    if not keep <= rows <= keep + int(is_v2):
        extra = " or one more, as the official v2 heads have" if is_v2 else ""
        raise ValueError(f"{name} has {rows} class rows; expected num_classes {keep}{extra}")
    return value[:keep]
