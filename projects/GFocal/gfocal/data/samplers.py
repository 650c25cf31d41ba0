"""Which images a training sees more often than others."""

from typing import Any

from detectron2.data.samplers import RepeatFactorTrainingSampler

__all__ = ["RepeatFactors"]


class RepeatFactors:
    """Repeats images with rare classes (LVIS, https://arxiv.org/abs/1908.03195, App. B.2).

    With f the share of images that have a class, an image comes max sqrt(repeat_thresh / f) times
    an epoch, over its classes, at least once. The argument ``sampler`` of
    :func:`gfocal.data.build_train_loader` calls it.

    Args:
        repeat_thresh: classes of a smaller share of images are repeated. 0: none is.

    Raises:
        ValueError: it is not in [0, 1].
    """

    def __init__(self, repeat_thresh: float):
        if isinstance(repeat_thresh, bool) or not 0 <= repeat_thresh <= 1:
            raise ValueError(
                f"RepeatFactors: repeat_thresh is {repeat_thresh!r}; expected a share of the "
                "images, in [0, 1]"
            )
        self.repeat_thresh = float(repeat_thresh)

    def __call__(self, dataset: Any, seed: int) -> RepeatFactorTrainingSampler:
        """
        Args:
            dataset: dataset dicts, or a map-style dataset of them.
            seed: of the order of images.

        Raises:
            ValueError: a dict has no "annotations".
        """
        dicts = [dataset[index] for index in range(len(dataset))]
        missing = next((x for x in dicts if "annotations" not in x), None)
        if missing is not None:
            raise ValueError(
                f'{missing.get("file_name", "a dataset dict")} has no "annotations", which '
                "RepeatFactors counts the classes of"
            )
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dicts, self.repeat_thresh
        )
        return RepeatFactorTrainingSampler(factors, seed=seed)
