"""ONNX files: core operators only; batch, height and width are free (of a network for one size the
batch alone)."""

import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._installed import MissingPackageError, is_installed
from ..backbones.deformable import DeformConv2d
from .card import KEY, ModelCard
from .network import TensorNetwork
from .nms import onnx_operator, onnx_translations
from .onnx_file import session_of
from .torch_formats import dynamic_shapes

__all__ = ["OPSET", "OnnxGraph", "opset_of", "read_onnx", "write_onnx"]

OPSET = 18
OPSET_OF_DEFORMABLE = 19  # the first with DeformConv


class OnnxGraph:
    """A graph that onnxruntime runs, see :class:`gfocal.export.formats.Runnable`."""

    def __init__(self, path: str, constants: Mapping[str, Any] | None = None):
        self.path, self._constants = path, constants
        self.session = session_of(path, ["CPUExecutionProvider"], constants=constants)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.card = ModelCard.from_json(metadata.get(KEY), path)

    def __call__(self, images: Tensor, image_sizes: Tensor | None = None) -> dict[str, Tensor]:
        inputs = {"images": images.numpy()}
        if image_sizes is not None:
            inputs["image_sizes"] = image_sizes.numpy()
        outputs = self.session.run(list(self.card.outputs), inputs)
        return {name: torch.from_numpy(x) for name, x in zip(self.card.outputs, outputs)}

    @property
    def score_thresh(self) -> Tensor:
        import onnx

        model = onnx.load(self.path, load_external_data=False)
        found = {x.name: x for x in model.graph.initializer}
        if "score_thresh" not in found:  # then it could not be changed either
            raise ValueError(f"{self.path} has no constant score_thresh")
        folder = os.path.dirname(self.path)
        return torch.tensor(onnx.numpy_helper.to_array(found["score_thresh"], folder))

    def with_score_thresh(self, values: Tensor) -> "OnnxGraph":
        from onnxruntime import OrtValue

        return OnnxGraph(self.path, {"score_thresh": OrtValue.ortvalue_from_numpy(values.numpy())})


def write_onnx(
    network: TensorNetwork, inputs: tuple[Tensor, ...], card: ModelCard, path: str
) -> None:
    """Writes a network as ONNX, of opset :func:`opset_of`.

    Raises:
        MissingPackageError: onnx, onnxscript or onnxruntime is not installed.
        ValueError: see :func:`gfocal.export.torch_formats.dynamic_shapes`.
    """
    missing = [x for x in ("onnx", "onnxscript", "onnxruntime") if not is_installed(x)]
    if missing:
        raise MissingPackageError(
            f"{', '.join(missing)} not installed, which ONNX files need: pip install gfocal[export]"
        )
    before, shapes = network.kept_by_nms, dynamic_shapes(network)
    network.kept_by_nms = onnx_operator()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                network,
                inputs,
                dynamo=True,
                opset_version=opset_of(network),
                dynamic_shapes=shapes,
                input_names=network.input_names,
                output_names=network.output_names,
                custom_translation_table=onnx_translations(),
                verbose=False,
            )
    finally:
        network.kept_by_nms = before
    program.model.metadata_props[KEY] = card.to_json()
    for node in program.model.graph.all_nodes():  # stack traces with paths
        node.metadata_props.clear()
    program.save(path)


def opset_of(network: TensorNetwork) -> int:
    """The version of ONNX's operators that a network needs."""
    deformable = any(isinstance(module, DeformConv2d) for module in network.modules())
    return OPSET_OF_DEFORMABLE if deformable else OPSET


def read_onnx(path: str) -> OnnxGraph:
    """Reads what :func:`write_onnx` wrote.

    Raises:
        ValueError: a file without the metadata of `gfocal export`.
    """
    return OnnxGraph(path)
