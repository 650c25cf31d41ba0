"""The losses of a model on images that it is not trained on."""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from detectron2.data import MapDataset
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from ..data.loader import unchanged
from ..process.sums import each_on_its_own

__all__ = ["ValidationBatches", "validation_losses"]


@torch.no_grad()
def validation_losses(model: nn.Module, batches: Iterable[list]) -> dict[str, float]:
    """Losses of a model on images that it is not trained on. They are computed as in training, but
    batch norm uses its running statistics and dropout drops nothing.

    Args:
        model: without DistributedDataParallel. A copy of it computes the losses, because a step may
            change values that are in no state dict (RetinaNet's running normaliser).
        batches: single images with ground truth, those of this process.

    Returns:
        the mean of each loss over the images of all processes, and "total_loss".
    """
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, (_NormBase, _DropoutNd)):
            module.eval()
    sums: Counter[str] = Counter()
    # This storage takes the metrics that the model writes: they are not the training's.
    with each_on_its_own(), EventStorage(_iteration()):
        for batch in batches:
            sums["images"] += 1
            for name, loss in model(batch).items():
                sums[name] += loss.item()
    gathered = comm.all_gather(dict(sums))
    names = [name for name in gathered[0] if name != "images"]
    count = sum(x.get("images", 0) for x in gathered)
    means = {name: sum(x.get(name, 0.0) for x in gathered) / count for name in names}
    return {**means, "total_loss": sum(means.values())}


def _iteration() -> int:
    """The iteration before the training's, for parts that change with it, such as a matcher's
    warm-up. (A training ends at a whole number of periods: all observers would look at all images.)
    """
    try:
        return max(1, get_event_storage().iter - 1)
    except AssertionError:  # there is no storage
        return 1


class ValidationBatches:
    """Single images with ground truth for :func:`validation_losses`, a share of them for each
    process.

    Args:
        dataset: dataset dicts.
        mapper: a Detectron2 mapper of the test images; a copy of it keeps the annotations.
        num_workers: processes that load images.

    Raises:
        ValueError: the mapper has no ``is_train``, which makes it keep annotations.
    """

    def __init__(self, dataset: Any, mapper: Any, num_workers: int):
        if not hasattr(mapper, "is_train"):
            raise ValueError(
                "validation_loss needs a test mapper with Detectron2's is_train, got a "
                f"{type(mapper).__name__}"
            )
        self.dataset = dataset
        self.mapper = copy.copy(mapper)
        self.mapper.is_train = True
        self.num_workers = num_workers

    def __iter__(self) -> Iterator[list]:
        loader = torch.utils.data.DataLoader(
            MapDataset(self.dataset, self.mapper),
            sampler=range(comm.get_rank(), len(self.dataset), comm.get_world_size()),
            batch_size=None,
            collate_fn=unchanged,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(0),
        )
        for image in loader:
            yield [image]
