"""The step of a training, in full or in mixed precision, of one batch or of several."""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..process.rng import preserved_rng
from ..process.sums import MicroBatchSums

__all__ = [
    "AccumulatingAMPTrainer",
    "AccumulatingTrainer",
    "AutocastTrainer",
    "is_cpu",
    "step_class",
]


class AutocastTrainer(SimpleTrainer):
    """The step of automatic mixed precision on a CPU: the forward pass in bfloat16 autocast.

    bfloat16 has the exponent range of float32, so no gradient is scaled. On CUDA use Detectron2's
    AMPTrainer.
    """

    def run_step(self) -> None:
        assert self.model.training, "model was changed to eval mode during training"
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss_dict = self.model(data)
            if isinstance(loss_dict, torch.Tensor):
                loss_dict = {"total_loss": loss_dict}
            losses = sum(loss_dict.values())
        self.optimizer.zero_grad()
        losses.backward()
        self._write_metrics(loss_dict, data_time)
        self.optimizer.step()


class AccumulatingTrainer(SimpleTrainer):
    """The step of several micro-batches: the gradients of one batch as large as all of them.

    The losses are divided by sums over the whole batch, and some of these depend on the
    predictions. So each micro-batch is computed twice: first without gradients, to know the sums,
    then with them (:class:`gfocal.process.sums.MicroBatchSums`). If a model's losses ask for no
    such sum, its gradients are the mean over the micro-batches, without the first pass; a warning
    says so once.

    The first pass leaves no trace in random states, buffers and numbers of the model's modules.
    Batch norm still normalises each micro-batch by itself.

    Args:
        accumulate: micro-batches a step.
        precision: of the forward pass, by autocast; None for full precision.
    """

    _has_sums: bool | None = None  # known after the first step

    def __init__(
        self,
        *args: Any,
        accumulate: int,
        precision: torch.dtype | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.accumulate = accumulate
        self.autocast_dtype = precision

    def run_step(self) -> None:
        assert self.model.training, "model was changed to eval mode during training"
        start = time.perf_counter()
        batches = [next(self._data_loader_iter) for _ in range(self.accumulate)]
        data_time = time.perf_counter() - start

        sums = self._summed(batches)
        self.optimizer.zero_grad()
        means: dict[str, Tensor] = {}
        with _means_of_micro_batches():
            for index, batch in enumerate(batches):
                with sums.micro_batch(index), self._synchronised(index == self.accumulate - 1):
                    losses = self._losses(self.model, batch)
                    self._backward(cast("Tensor", sum(losses.values())) / self.accumulate)
                for name, loss in losses.items():
                    means[name] = means.get(name, 0) + loss.detach() / self.accumulate
        self._write_metrics(means, data_time)
        self._update()

    def _summed(self, batches: list) -> MicroBatchSums:
        """The first pass."""
        sums = MicroBatchSums(len(batches))
        if self._has_sums is False:
            return sums
        model = self.model
        if isinstance(model, DistributedDataParallel):
            model = model.module
        # Parts may change with the iteration, such as a matcher's warm-up.
        storage = EventStorage(get_event_storage().iter)
        with torch.no_grad(), _unchanged(model), storage:
            for index, batch in enumerate(batches):
                with sums.counted(index):
                    self._losses(model, batch)
        has_sums = sums.add_up()
        if self._has_sums is None and not has_sums:
            logging.getLogger(__name__).warning(
                f"The losses of {type(model).__name__} are divided by no sum over the whole batch "
                "(gfocal.process.sum_over_workers): its gradients are the mean over "
                f"{self.accumulate} micro-batches, not those of one batch as large as all of them"
            )
        self._has_sums = has_sums
        return sums

    def _losses(self, model: nn.Module, batch: list) -> dict[str, Tensor]:
        device, dtype = next(model.parameters()).device.type, self.autocast_dtype
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            losses = model(batch)
        return {"total_loss": losses} if isinstance(losses, Tensor) else losses

    def _synchronised(self, now: bool) -> contextlib.AbstractContextManager:
        """Processes exchange gradients once, in the backward pass of the last micro-batch."""
        alone = getattr(self.model, "no_sync", None)
        return contextlib.nullcontext() if now or alone is None else alone()

    def _backward(self, loss: Tensor) -> None:
        loss.backward()

    def _update(self) -> None:
        self.optimizer.step()


class AccumulatingAMPTrainer(AccumulatingTrainer, AMPTrainer):
    """:class:`AccumulatingTrainer` in float16 on CUDA, with Detectron2's gradient scaler."""

    grad_scaler: Any

    def _backward(self, loss: Tensor) -> None:
        self.grad_scaler.scale(loss).backward()

    def _update(self) -> None:
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()


def step_class(model: nn.Module, *, amp: bool, accumulate: int = 1) -> Callable[..., SimpleTrainer]:
    """Returns what makes the trainer whose ``run_step`` trains a model.

    Args:
        model: on its device.
        amp: automatic mixed precision.
        accumulate: micro-batches a step.
    """
    cpu = is_cpu(model)
    if accumulate == 1:
        return (AutocastTrainer if cpu else AMPTrainer) if amp else SimpleTrainer
    if not amp:
        return functools.partial(AccumulatingTrainer, accumulate=accumulate)
    step = AccumulatingTrainer if cpu else AccumulatingAMPTrainer
    precision = torch.bfloat16 if cpu else torch.float16
    return functools.partial(step, accumulate=accumulate, precision=precision)


def is_cpu(model: nn.Module) -> bool:
    """Whether a model's parameters are on the CPU."""
    return next(model.parameters()).device.type == "cpu"


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Code inside it leaves no trace in random states, in buffers and in numbers and tensors that
    are attributes of modules (such as RetinaNet's running normaliser)."""
    numbers = [(vars(module), _numbers(module)) for module in model.modules()]
    tensors = [x for _, found in numbers for x in found.values() if isinstance(x, Tensor)]
    kept = [(x, x.detach().clone()) for x in (*model.buffers(), *tensors)]
    with preserved_rng():
        try:
            yield
        finally:
            for tensor, value in kept:
                tensor.copy_(value)
            for attributes, before in numbers:
                for name in [k for k, v in attributes.items() if _is_number(v)]:
                    if name not in before:
                        del attributes[name]
                attributes.update(before)


def _numbers(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Tensor))


@contextlib.contextmanager
def _means_of_micro_batches() -> Iterator[None]:
    """What is put into the event storage inside it arrives as the mean; of pictures the first."""
    outer = get_event_storage()
    with _FirstPictures(outer) as inner:
        yield
    hints = inner.smoothing_hints()
    for name, history in inner.histories().items():
        values = [value for value, _ in history.values()]
        outer.put_scalar(name, sum(values) / len(values), smoothing_hint=hints[name])


class _FirstPictures(EventStorage):
    """An event storage that hands each first picture and histogram of a name on to another."""

    def __init__(self, outer: EventStorage):
        super().__init__(outer.iter)
        self._outer = outer
        self._seen: set[str] = set()

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        if img_name not in self._seen:
            self._outer.put_image(img_name, img_tensor)
        self._seen.add(img_name)

    def put_histogram(self, hist_name: str, *args: Any, **kwargs: Any) -> None:
        if hist_name not in self._seen:
            self._outer.put_histogram(hist_name, *args, **kwargs)
        self._seen.add(hist_name)
