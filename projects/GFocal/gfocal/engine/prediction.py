"""The detections of many images, written as COCO results.

While it runs, each process adds to a file of JSON lines. After a kill, the same call goes on where
these files end. At the end they become one json, and are removed. Batches are a function of the
whole list of images: a resumed run, or one of other processes, computes the same numbers.
"""

import contextlib
import copy
import glob
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from detectron2.utils import comm
from tqdm import tqdm

from ..config import Config, set_weights
from ..data.images import image_size, read_image
from ..weights.description import describe
from .batching import padded, plan_batches, size_after
from .prediction_lines import ImageFile, Lines, PredictionSettings
from .predictor import Predictor

__all__ = [
    "ImageFile",
    "PredictionSettings",
    "check_output",
    "digest",
    "digest_of_config",
    "digest_of_file",
    "predict_files",
]

WINDOW = 32  # batches that are planned at once: of so many images the sizes are compared


def digest(*parts: str) -> str:
    """A short fingerprint of texts."""
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:16]


def digest_of_config(cfg: Config) -> str:
    """A short fingerprint of a config, but for the path of its weights. A config with objects in it
    counts as any other of this kind."""
    set_weights(cfg := copy.deepcopy(cfg), "")
    return digest(json.dumps(describe(cfg).config, sort_keys=True))


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
    interrupted = glob.glob(f"{glob.escape(output)}.part*.jsonl")
    if os.path.exists(output) and not (overwrite or interrupted):
        raise FileExistsError(f"--output is {output!r}, which is there; --overwrite replaces it")


def predict_files(
    predictor: Predictor,
    images: Sequence[ImageFile],
    output: str,
    settings: PredictionSettings,
    *,
    categories: Sequence[dict[str, Any]] | None = None,
    num_workers: int = 2,
    progress: bool = True,
) -> list[str]:
    """Predicts images and writes their detections to a json. All processes call it; they share the
    images.

    Args:
        predictor: of the detector.
        images: their files.
        output: the json: a list of {"image_id", "category_id", "bbox" (XYWH, pixels), "score"},
            image after image, each best first.
        settings: see there.
        categories: {"id", "name"} of each class. With them, the sizes and file names of the images
            go into OUTPUT.images.json, so that the two files are a dataset in COCO format.
        num_workers: processes that read and resize images; 0: none but this.
        progress: show a bar with images a second.

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
    share = batches[comm.get_rank() :: comm.get_world_size()]
    comm.synchronize()  # all have read what was done before anybody adds
    total = sum(map(len, share))
    bar = tqdm(total=total, unit=" images", disable=not (progress and comm.is_main_process()))
    with bar, lines.open(comm.get_rank()) as file:
        for batch, inputs in _read_ahead(predictor, images, share, num_workers):
            good = [i for i, x in zip(batch, inputs) if not isinstance(x, str)]
            readable = [x for x in inputs if not isinstance(x, str)]
            found = predictor.predict(readable, settings.batch_size)
            records = [
                {"index": i, "error": x} for i, x in zip(batch, inputs) if isinstance(x, str)
            ]
            records += [
                {"index": i, **_record(output_of_image["instances"], settings)}
                for i, output_of_image in zip(good, found)
            ]
            lines.add(file, records)
            bar.update(len(batch))
    comm.synchronize()
    if not comm.is_main_process():
        return []
    return lines.finish(images, categories)


def _planned(
    predictor: Predictor, images: Sequence[ImageFile], batch_size: int
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
                    size = size_after(predictor.augmentations, image_size(image.path))
            sizes.append(size and padded(size, predictor.size_divisibility))
        for batch in plan_batches(sizes, batch_size):
            yield [start + index for index in batch]


def _read_ahead(
    predictor: Predictor, images: Sequence[ImageFile], batches: list[list[int]], num_workers: int
) -> Iterator[tuple[list[int], list[Any]]]:
    """The batches in order, with the model's inputs of their images, or what is wrong with one."""
    reader = _Reader(predictor, [image.path for image in images], batches)
    loader = torch.utils.data.DataLoader(
        reader, batch_size=None, num_workers=min(num_workers, len(batches)), collate_fn=_as_it_is
    )
    yield from zip(batches, loader)


def _as_it_is(batch: Any) -> Any:
    return batch


class _Reader(torch.utils.data.Dataset):
    """Reads the images of a batch, in a worker process."""

    def __init__(
        self, predictor: Predictor, paths: Sequence[str], batches: Sequence[Sequence[int]]
    ):
        self._predictor, self._paths, self._batches = predictor, paths, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> list[Any]:
        return [self._read(self._paths[i]) for i in self._batches[index]]

    def _read(self, path: str) -> Any:
        try:
            return self._predictor.preprocess(read_image(path, self._predictor.read_format))
        except (OSError, ValueError) as error:
            return str(error)


def _record(instances: Instances, settings: PredictionSettings) -> dict[str, Any]:
    """An image's size and detections as plain data; numbers in the shortest form of float32."""
    height, width = instances.image_size
    instances = instances[instances.scores >= settings.confidence]
    boxes = instances.pred_boxes.tensor.float().cpu().numpy().copy()
    boxes[:, 2:] -= boxes[:, :2]
    scores = instances.scores.float().cpu().numpy()
    classes = instances.pred_classes.tolist()
    return {
        "height": height,
        "width": width,
        "detections": [
            {
                "category_id": settings.category_ids[c] if settings.category_ids else c,
                "bbox": [_short(x) for x in box],
                "score": _short(score),
            }
            for c, box, score in zip(classes, boxes, scores)
        ],
    }


def _short(x: np.float32) -> float:
    return float(str(x))
