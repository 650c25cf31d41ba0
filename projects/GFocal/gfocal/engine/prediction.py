"""The detections of many images, written as COCO results.

While it runs, each process adds to a file of JSON lines. After a kill, the same call goes on where
these files end. At the end they become one json, and are removed. Batches are a function of the
whole list of images: a resumed run, or one of other processes, computes the same numbers. (With as
many threads a process; torchrun gives each one, unless OMP_NUM_THREADS says otherwise.)

Neither PyTorch nor Detectron2 is imported here. What a PyTorch model brings is in sharing.py.
"""

import contextlib
import gc
import glob
import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from .._installed import is_installed
from ..data.batching import ImagePredictor, plan_batches
from ..data.images import image_size, read_image
from ..data.run_lengths import pack_mask
from ..data.sides import pack_sides, relative_bins
from .prediction_lines import ImageFile, Lines, PredictionSettings

__all__ = [
    "ALONE",
    "ImageFile",
    "PredictionSettings",
    "ReadAhead",
    "Share",
    "check_output",
    "digest",
    "digest_of_file",
    "is_interrupted",
    "predict_files",
    "read_in_threads",
]

WINDOW = 32  # batches that are planned at once: of so many images the sizes are compared
# Called with a function that reads one batch, all batches, and the number of workers.
ReadAhead = Callable[
    [Callable[[Sequence[int]], list[Any]], Sequence[Sequence[int]], int], Iterator[list[Any]]
]


class Share(NamedTuple):
    """Which of several processes this is. By default it is the only one.

    Attributes:
        rank: from 0 on; 0 writes the output.
        world_size: number of processes.
        synchronize: waits until all have called it.
    """

    rank: int = 0
    world_size: int = 1
    synchronize: Callable[[], None] = lambda: None


ALONE = Share()


def digest(*parts: str) -> str:
    """A short fingerprint of texts."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]


def digest_of_file(path: str) -> str:
    """A short fingerprint of a file's content, or of a URL."""
    if "://" in path:
        return digest(path)
    ret = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 24):
            ret.update(chunk)
    return ret.hexdigest()[:16]


def check_output(output: str, overwrite: bool) -> None:
    """Makes the folder of an output, and refuses to replace an output that is finished.

    Raises:
        FileExistsError: the file is there, and not by a run that can go on.
        IsADirectoryError: it is a folder.
        OSError: its folder cannot be made.
        ValueError: it does not end in .json: x.txt and x.json would share x.images.json.
    """
    if os.path.isdir(output):
        raise IsADirectoryError(f"--output is {output!r}, a folder; expected a file, x.json")
    if not output.endswith(".json"):
        raise ValueError(f"--output is {output!r}; expected a file, x.json")
    os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
    if os.path.exists(output) and not (overwrite or is_interrupted(output)):
        raise FileExistsError(f"--output is {output!r}, which is there; --overwrite replaces it")


def is_interrupted(output: str) -> bool:
    """Whether a run left lines beside an output, so that the same run can go on."""
    return bool(glob.glob(f"{glob.escape(output)}.part*.jsonl"))


@contextlib.contextmanager
def _old_objects_at_rest() -> Iterator[None]:
    """Inside it, the garbage collector leaves alone what was there before. Else every thousand
    boxes it looks at all of PyTorch again."""
    if gc.get_freeze_count():  # somebody has seen to it
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@_old_objects_at_rest()
def predict_files(
    predictor: ImagePredictor,
    images: Sequence[ImageFile],
    output: str,
    settings: PredictionSettings,
    *,
    categories: Sequence[dict[str, Any]] | None = None,
    num_workers: int = 2,
    progress: bool = True,
    share: Share = ALONE,
    read_ahead: ReadAhead | None = None,
    each: Callable[[ImageFile, dict[str, Any]], None] | None = None,
) -> list[str]:
    """Predicts images and writes their detections to a json. All processes call it; they share the
    images.

    Args:
        predictor: of the detector.
        images: their files.
        output: the json: a list of {"image_id", "category_id", "bbox" (XYWH, pixels), "score"},
            image after image, each best first. Where the detector has standard deviations, also
            "bbox_std" (left, top, right, bottom, pixels).
        settings: see there.
        categories: {"id", "name"} of each class. With them, the sizes and file names of the images
            go into OUTPUT.images.json, so that the two files are a dataset in COCO format.
        num_workers: threads or processes that read and resize images; 0: none but this.
        progress: show a bar with images a second, where tqdm is installed.
        share: which of the processes this is, see :func:`gfocal.engine.sharing.own_share`.
        read_ahead: reads batches in workers; by default :func:`read_in_threads`.
        each: called on the main process when all is predicted, with every image that was read, in
            their order, and its record: "height", "width" and "detections", as in the json. With
            ``settings.distributions`` a record also has "bins", and a detection "sides": see
            :mod:`gfocal.data.sides`.

    Returns:
        a sentence for each image that could not be read, on the main process; [] on others.

    Raises:
        ValueError: there are lines of a run with other settings.
        OSError: a file cannot be written.
    """
    lines = Lines(output, settings)
    done = lines.read()
    batches = [
        batch for batch in _planned(predictor, images, settings.batch_size) if not done >= {*batch}
    ]
    own = batches[share.rank :: share.world_size]
    share.synchronize()  # all have read what was done before anybody adds
    read = _Reader(predictor, [image.path for image in images])
    inputs_of_batches = (read_ahead or read_in_threads)(read, own, num_workers)
    is_told = share.rank > 0
    with (
        _bar(sum(map(len, own)), progress and share.rank == 0) as count,
        lines.open(share.rank) as file,
    ):
        for batch, inputs in zip(own, inputs_of_batches):
            good = [i for i, x in zip(batch, inputs) if not isinstance(x, str)]
            readable = [x for x in inputs if not isinstance(x, str)]
            found = predictor.predict(readable, settings.batch_size)
            is_told = is_told or _tell_without_stds(found)
            records = [
                {"index": i, "error": x} for i, x in zip(batch, inputs) if isinstance(x, str)
            ]
            records += [
                {"index": i, **_record(output_of_image["instances"], settings)}
                for i, output_of_image in zip(good, found)
            ]
            lines.add(file, records)
            count(len(batch))
    share.synchronize()
    return lines.finish(images, categories, each) if share.rank == 0 else []


def read_in_threads(
    read: Callable[[Sequence[int]], list[Any]], batches: Sequence[Sequence[int]], num_workers: int
) -> Iterator[list[Any]]:
    """``read(batch)`` of each batch, in order. Pillow decodes and resizes beside other threads."""
    if num_workers == 0:
        yield from map(read, batches)
        return
    waiting: deque[Future[list[Any]]] = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        for batch in batches:
            waiting.append(pool.submit(read, batch))
            if len(waiting) > 2 * num_workers:  # bounds what waits in memory
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextlib.contextmanager
def _bar(total: int, show: bool) -> Iterator[Callable[[int], Any]]:
    """Shows a bar; gives the function that counts on."""
    if not (show and is_installed("tqdm")):
        yield lambda number: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit=" images") as bar:
        yield bar.update


def _planned(
    predictor: ImagePredictor, images: Sequence[ImageFile], batch_size: int
) -> Iterator[list[int]]:
    """All batches. The sizes are read from the heads of the files; a window bounds how far apart in
    the list the images of a batch can be."""
    window = WINDOW * batch_size if batch_size > 1 else len(images)
    for start in range(0, len(images), max(window, 1)):
        sizes = []
        for image in images[start : start + window]:
            size = None
            if batch_size > 1:
                with contextlib.suppress(OSError, ValueError):  # told when it is read
                    size = predictor.size_in_batch(image_size(image.path))
            sizes.append(size)
        for batch in plan_batches(sizes, batch_size):
            yield [start + index for index in batch]


class _Reader:
    """Reads the images of a batch, in a worker: the network's inputs, or what is wrong with one."""

    def __init__(self, predictor: ImagePredictor, paths: Sequence[str]):
        self._predictor, self._paths = predictor, paths

    def __call__(self, batch: Sequence[int]) -> list[Any]:
        return [self._read(self._paths[index]) for index in batch]

    def _read(self, path: str) -> Any:
        try:
            return self._predictor.preprocess(read_image(path, self._predictor.read_format))
        except (OSError, ValueError) as error:
            return str(error)


def _tell_without_stds(outputs: Sequence[dict[str, Any]]) -> bool:
    """Logs that the detections of some images have no standard deviations. Returns whether there
    was a detection to tell it from."""
    for instances in (output["instances"] for output in outputs):
        if len(instances):
            if not instances.has("pred_box_stds"):
                logging.getLogger(__name__).warning(
                    "The detector's sides are single numbers: the results have no bbox_std"
                )
            return True
    return False


def _record(instances: Any, settings: PredictionSettings) -> dict[str, Any]:
    """An image's size and detections as plain data; numbers in the shortest form of float32."""
    height, width = instances.image_size
    instances = instances[instances.scores >= settings.confidence]
    boxes = _array(instances.pred_boxes.tensor).copy()
    boxes[:, 2:] -= boxes[:, :2]
    scores = _array(instances.scores)
    detections: list[dict[str, Any]] = [
        {
            "category_id": settings.category_ids[c] if settings.category_ids else c,
            "bbox": [_short(x) for x in box],
            "score": _short(score),
        }
        for c, box, score in zip(instances.pred_classes.tolist(), boxes, scores)
    ]
    if instances.has("pred_masks"):
        for detection, mask in zip(detections, instances.pred_masks):
            detection["segmentation"] = pack_mask(mask)
    record = {"height": height, "width": width, "detections": detections}
    if instances.has("pred_box_stds"):
        for detection, stds in zip(detections, _array(instances.pred_box_stds)):
            detection["bbox_std"] = [_short(x) for x in stds]
    if settings.distributions and instances.has("pred_box_distributions") and detections:
        edges = _array(instances.bin_edges)
        record["bins"] = relative_bins(edges)
        probabilities = _array(instances.pred_box_distributions)
        for detection, sides in zip(detections, pack_sides(probabilities, edges)):
            detection["sides"] = sides
    return record


def _array(values: Any) -> np.ndarray:
    """Of an array, or of a tensor anywhere."""
    return values if isinstance(values, np.ndarray) else values.float().cpu().numpy()


def _short(x: np.float32) -> float:
    return float(str(x))
