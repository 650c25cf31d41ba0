"""Any network of timm (PyTorch Image Models) as a Detectron2 backbone."""

import os
from collections.abc import Sequence
from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from .._installed import MissingPackageError, is_installed

__all__ = ["TimmBackbone"]

_NOT_OPTIONS = {  # of timm.create_model: what says the same here
    "pretrained": "pretrained=True",
    "pretrained_cfg": "weights=FILE",
    "pretrained_cfg_overlay": "weights=FILE",
    "checkpoint_path": "weights=FILE",
    "features_only": "nothing, as it is always set",
}


class TimmBackbone(Backbone):
    """The maps of a timm network, named by their strides as those of Detectron2's ResNet: "res2" of
    stride 4, "res3" of 8, and so on. Of several maps of one stride it gives the last.

    Args:
        name: of the network, e.g. "convnext_tiny.fb_in1k"; ``timm.list_models()`` has all.
        out_features: names of the maps; by default all.
        pretrained: timm loads the weights that belong to the name.
        weights: the path of a file with weights of this network, which timm loads, in place of
            them.
        freeze_at: the first so many of the network's maps stay as they are, with all that is before
            them; their batch norms become frozen ones.
        options: of ``timm.create_model``, e.g. ``{"img_size": 512}`` of a network for one size.

    Raises:
        MissingPackageError: timm is not installed.
        ValueError: there is no such network, it has no such map, or not so many; an option that an
            argument takes the place of.
        FileNotFoundError: ``weights`` is not there.
    """

    def __init__(
        self,
        *,
        name: str,
        out_features: Sequence[str] | None = None,
        pretrained: bool = False,
        weights: str | os.PathLike | None = None,
        freeze_at: int = 0,
        options: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.net = _network(name, pretrained, weights, dict(options or {}))
        info: Any = self.net.feature_info
        strides, channels = info.reduction(), info.channels()
        self._places = {f"res{stride.bit_length() - 1}": i for i, stride in enumerate(strides)}
        known = list(self._places)
        self._out_features = known if out_features is None else list(out_features)
        if missing := [x for x in self._out_features if x not in known]:
            raise ValueError(f"out_features has {missing}; {name} has the maps {known}")
        if not 0 <= freeze_at <= len(strides):
            raise ValueError(f"freeze_at is {freeze_at}; expected 0 to {len(strides)} maps")
        if freeze_at:
            _freeze(self.net, info.module_name(freeze_at - 1))
        self._shapes = {
            x: ShapeSpec(channels=channels[i], stride=strides[i])
            for x, i in self._places.items()
            if x in self._out_features
        }
        self._last_axis = str(getattr(self.net, "output_fmt", "")).endswith("NHWC")

    @property
    def size_divisibility(self) -> int:
        return max(shape.stride for shape in self._shapes.values())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) -> {name: (N, channels, H / stride, W / stride)}."""
        maps = self.net(x)
        if self._last_axis:
            maps = [y.permute(0, 3, 1, 2).contiguous() for y in maps]
        return {name: maps[self._places[name]] for name in self._shapes}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)


def _network(
    name: str, pretrained: bool, weights: str | os.PathLike | None, options: dict[str, Any]
) -> nn.Module:
    if not is_installed("timm"):
        raise MissingPackageError(
            f"TimmBackbone {name!r} needs timm, which is not installed: pip install 'gfocal[timm]'"
        )
    import timm

    for option in _NOT_OPTIONS.keys() & options.keys():
        raise ValueError(
            f"options has {option!r}; expected {_NOT_OPTIONS[option]} of TimmBackbone {name!r}"
        )
    base = name.partition(".")[0]
    if not timm.is_model(base):
        near = timm.list_models(f"*{base}*")[:5]
        raise ValueError(
            f"timm has no model {name!r}" + (f"; did you mean one of {near}?" if near else "")
        )
    if weights is not None:
        if not os.path.isfile(weights):
            raise FileNotFoundError(f"{os.fspath(weights)}: no such file with weights of {name}")
        options["pretrained_cfg_overlay"] = {"file": os.fspath(weights)}
    pretrained = pretrained or weights is not None
    return timm.create_model(name, features_only=True, pretrained=pretrained, **options)


def _freeze(net: nn.Module, last: str) -> None:
    """The parameters of a module and of those before it are not trained; nor do their batch norms
    count any more.

    Args:
        last: the module's name in the network that the maps are of. Here it may be that of a child
            ("layers_0" for "layers.0") or lie deeper ("model.layers.0").
    """
    from timm.layers import freeze_batch_norm_2d

    modules = dict(net.named_modules())
    end = next(x for x in (last, last.replace(".", "_"), f"model.{last}") if x in modules)
    seen = False
    for name, module in modules.items():
        inside = name == end or name.startswith(f"{end}.")
        if seen and not inside:
            return
        seen = seen or inside
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad = False
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and name:
            net.set_submodule(name, freeze_batch_norm_2d(module))
