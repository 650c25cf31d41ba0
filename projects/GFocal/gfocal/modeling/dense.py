"""The seam between a network and the detector: from predictions to losses or detections.

On one side is the network: backbone and head, with all the parameters. On the other side is
:class:`DenseCore`: anchors, matcher, criterion and post-processing, without parameters. The tuples
of structures.py flow over the seam. Exports, proposal generators and teachers cut here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Instances
from torch import Tensor, nn

from ..process.sums import each_micro_batch_on_its_own, is_counting
from .contracts import Head, Matcher, PostProcess
from .ground_truth import check_ground_truth
from .matchers import check_matches, ignore_background_inside
from .numerics import is_traced
from .postprocess import Candidates, NMSPostProcess
from .sides import check_distributions
from .structures import IGNORED, DenseAnchors, DensePredictions, DenseTargets, GroundTruth

__all__ = ["DenseCore", "DenseStep", "refuse_to_be_traced"]


class DenseStep(NamedTuple):
    """A training step, as an observer sees it.

    Attributes:
        anchors, predictions, truth, targets: of the batch, see structures.py.
        batched_inputs: the data loader's dicts; () if the losses were computed without them.
    """

    anchors: DenseAnchors
    predictions: DensePredictions
    truth: GroundTruth
    targets: DenseTargets
    batched_inputs: Sequence[Mapping[str, Any]] = ()

    def first(self) -> tuple[DenseAnchors, DensePredictions]:
        """What :meth:`DenseCore.inference` takes of the first image."""
        return self.anchors, self.predictions.first()


Observer = Callable[["DenseCore", DenseStep], None]


class DenseCore(nn.Module):
    """Anchors, matcher, criterion and post-processing of a dense detector; it adds no parameters.

    Args:
        anchor_generator: a Detectron2 anchor generator with one anchor a location.
        matcher: see matchers.
        criterion: :class:`GFLCriterion`, or a module that is called in the same way.
        postprocess: ``(anchors, predictions, image_sizes)`` -> detections, e.g.
            :class:`gfocal.modeling.postprocess.NMSPostProcess`.
        num_classes: K.
        observers: called after the losses of each step, those of a validation loss too, with this
            module and the :class:`DenseStep`; see observers.py. They change nothing.
        ignore_padding: locations on the padding of the batch take no part in training. False: they
            are background like others, as in FoveaBox.

    Raises:
        TypeError: the anchors are rotated.
    """

    def __init__(
        self,
        *,
        anchor_generator: nn.Module,
        matcher: Matcher,
        criterion: nn.Module,
        postprocess: PostProcess,
        num_classes: int,
        observers: Sequence[Observer] = (),
        ignore_padding: bool = True,
    ):
        super().__init__()
        if getattr(anchor_generator, "box_dim", 4) != 4:
            raise TypeError(
                f"the anchors of a {type(anchor_generator).__name__} are RotatedBoxes; expected "
                "Boxes, as those of DefaultAnchorGenerator (docs/other_projects.md says what "
                "rotated boxes need)"
            )
        self.anchor_generator = anchor_generator
        # Detectron2 0.5 would keep these constants in the state dict; later versions do not.
        for anchors in anchor_generator.children():
            for name, buffer in list(anchors.named_buffers()):
                anchors.register_buffer(name, buffer, persistent=False)
        self.strides = list(cast("Any", anchor_generator).strides)
        self.matcher = matcher
        self.criterion = criterion
        self.postprocess = postprocess
        self.num_classes = num_classes
        self.observers = list(observers)
        self.ignore_padding = ignore_padding

    def anchors(self, features: Sequence[Tensor]) -> DenseAnchors:
        """The anchors of feature maps (N, F, H, W), finest first.

        Raises:
            ValueError: if the generator does not give one anchor a location.
        """
        return DenseAnchors.from_levels(
            self.anchor_generator(features),
            [(f.shape[-2], f.shape[-1]) for f in features],
            self.strides,
        )

    def locations(self, shapes: Sequence[tuple[Any, Any]], like: Tensor) -> tuple[Tensor, Tensor]:
        """Centres (R, 2) and strides (R, 1) of all locations, pixels: those of :meth:`anchors`,
        for a trace, where sizes are tensors.

        Args:
            shapes: (H, W) of each level.
            like: a tensor of the device.
        """
        offset = float(cast("Any", self.anchor_generator).offset)
        centers, strides = [], []
        for (height, width), stride in zip(shapes, map(int, self.strides)):
            rows, columns = (
                (torch.arange(n, device=like.device) + offset) * stride for n in (height, width)
            )
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            centers.append(torch.stack([x, y], dim=-1).flatten(0, 1))
            strides.append(torch.full_like(centers[-1][:, :1], float(stride)))
        return torch.cat(centers), torch.cat(strides)

    def check_locations(self) -> None:
        """Refuses anchors that :meth:`locations` does not know.

        Raises:
            TypeError: of another anchor generator, or with other centres.
        """
        if type(self.anchor_generator) is not DefaultAnchorGenerator:
            raise TypeError(
                f"the anchor generator is a {type(self.anchor_generator).__name__}; gfocal export "
                "knows DefaultAnchorGenerator"
            )
        shapes = [(3 + i, 2 + i) for i in range(len(self.strides))]
        like = next(self.anchor_generator.buffers(), torch.zeros(()))
        anchors = self.anchors([like.new_zeros(1, 1, *shape) for shape in shapes])
        centers, strides = self.locations(shapes, like)
        if not (
            torch.allclose(centers, anchors.centers, atol=1e-4)
            and torch.equal(strides[:, 0], anchors.strides)
        ):
            raise TypeError(
                "the anchors' centres are not at (index + offset) * stride; gfocal export knows no "
                "others"
            )

    @torch.no_grad()
    def label_anchors(
        self, anchors: DenseAnchors, predictions: DensePredictions, truth: GroundTruth
    ) -> DenseTargets:
        """The labels of all locations.

        Two kinds of locations are ignored: those beyond ``truth.image_sizes``, unless
        ``ignore_padding`` is False, and those in ``truth.ignore_regions`` that are positive for no
        box.

        Raises:
            TypeError, ValueError: if the matcher's answer is not valid, see :func:`check_matches`,
                or the ground truth, see :func:`check_ground_truth`.
        """
        check_ground_truth(truth, len(predictions.cls_logits), self.num_classes)
        if not self.ignore_padding:
            truth = truth._replace(image_sizes=None)
        matches = self.matcher(anchors, truth, predictions.detach())
        check_matches(matches, anchors, truth, self.matcher)
        idxs = matches.idxs
        if truth.image_sizes is not None:  # whatever the matcher says of padding
            idxs = torch.where(anchors.inside(truth.image_sizes), idxs, IGNORED)
        idxs = ignore_background_inside(idxs, anchors, truth.ignore_regions)
        return DenseTargets.from_matches(matches._replace(idxs=idxs), truth, self.num_classes)

    def losses(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        truth: GroundTruth,
        batched_inputs: Sequence[Mapping[str, Any]] = (),
        **more: Any,
    ) -> dict[str, Tensor]:
        """The losses of a batch, {name: scalar}, in at least float32.

        Args:
            anchors, predictions, truth: of the batch.
            batched_inputs: for the observers, who may draw the images.
            **more: further arguments of the criterion.

        Raises:
            TypeError, ValueError: see :meth:`label_anchors`; or if the predictions are not of these
                anchors and classes.
        """
        self._check_predictions(anchors, predictions)
        with torch.autocast(anchors.boxes.device.type, enabled=False):
            targets = self.label_anchors(anchors, predictions, truth)
            losses = self.criterion(anchors, predictions, targets, **more)
            if is_counting():
                return losses
            step = DenseStep(anchors, predictions.detach(), truth, targets, batched_inputs)
            with each_micro_batch_on_its_own():
                for observer in self.observers:
                    observer(self, step)
        return losses

    def inference(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """Detections in pixels of the network's input, see the post-processing.

        Args:
            anchors, predictions: of the batch.
            image_sizes: (height, width) without padding, pixels.

        Raises:
            ValueError: if the predictions are not of these anchors and classes.
            RuntimeError: under a trace, see :func:`refuse_to_be_traced`.
        """
        refuse_to_be_traced()
        self._check_predictions(anchors, predictions)
        with torch.autocast(anchors.boxes.device.type, enabled=False):
            return self.postprocess(anchors, predictions, image_sizes)

    def dense_candidates(
        self,
        anchors: DenseAnchors,
        predictions: DensePredictions,
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Candidates]:
        """As :meth:`inference`, but before NMS.

        Raises:
            TypeError: if the post-processing has no candidates.
            RuntimeError: under a trace, see :func:`refuse_to_be_traced`.
        """
        refuse_to_be_traced()
        if not isinstance(self.postprocess, NMSPostProcess):
            raise TypeError(
                f"the postprocess {type(self.postprocess).__name__} has no candidates; expected an "
                "NMSPostProcess"
            )
        self._check_predictions(anchors, predictions)
        with torch.autocast(anchors.boxes.device.type, enabled=False):
            stds = self.postprocess.stds
            return self.postprocess.candidates(anchors, predictions, image_sizes, stds=stds)

    def suppress(self, image_size: tuple[int, int], candidates: Candidates) -> Instances:
        """The detections among the candidates of one image, in pixels of ``image_size``."""
        return cast("NMSPostProcess", self.postprocess).suppress(image_size, candidates)

    def _check_predictions(self, anchors: DenseAnchors, predictions: DensePredictions) -> None:
        cls_logits, box_logits = predictions.cls_logits, predictions.box_logits
        rows = (len(cls_logits), len(anchors.boxes))
        shapes = (tuple(cls_logits.shape), tuple(box_logits.shape[:3]))
        if shapes != ((*rows, self.num_classes), (*rows, 4)):
            raise ValueError(
                f"the head answered class logits {shapes[0]} and box logits "
                f"{tuple(box_logits.shape)}; expected (images, locations, classes) "
                f"{(*rows, self.num_classes)} and {(*rows, 4)} and channels"
            )

    def check_head(self, head: Head) -> None:
        """Refuses a head that these parts do not fit.

        Raises:
            TypeError: if the head lacks an attribute that is read.
            ValueError: if it has other classes or levels, or a loss term does not fit it.
        """
        needed = ("num_classes", "num_levels", "box_representation")
        missing = [name for name in needed if not hasattr(head, name)]
        if missing:
            raise TypeError(
                f"the head {type(head).__name__} has no {', '.join(missing)}; expected a GFLHead, "
                f"or a module with {', '.join(needed)}"
            )
        if head.num_classes != self.num_classes:
            raise ValueError(
                f"the head has {head.num_classes} classes, the detector {self.num_classes}"
            )
        if getattr(self.postprocess, "distributions", False):
            check_distributions(head.box_representation)
        check_head = getattr(self.criterion, "check_head", None)
        if check_head is not None:
            check_head(head)


def refuse_to_be_traced() -> None:
    """A trace of the post-processing would keep the numbers of one batch, such as how many
    candidates a level has, and be wrong on the next.

    Raises:
        RuntimeError: in torch.jit.trace, torch.export or torch.onnx.export.
    """
    if is_traced():
        raise RuntimeError(
            "this detector cannot be traced or exported as it is: its post-processing depends on "
            "what is on an image. `gfocal export --weights W --output model.onnx` (or .ts, .pt2) "
            "writes a graph that is right for every image; from Python: "
            "gfocal.export.export_model. (To count FLOPs: gfocal analyze)"
        )
