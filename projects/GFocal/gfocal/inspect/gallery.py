"""Files of pictures: of each image by itself, or one sheet of all.

Both take one image after the other by `add`, and finish with `close`.
"""

import os
from typing import Any

import numpy as np
from detectron2.structures import Instances
from PIL import Image

from .pictures import draw_box_distributions, draw_detections, draw_grid

__all__ = ["PictureFiles", "PictureSheet"]

ROWS, BOXES_A_ROW = 3, 3  # on a sheet of distributions
# Arguments of a drawing: image, instances, metadata, lowest score.
_Drawing = tuple[np.ndarray, Instances, Any, float]


class _Pictures:
    """
    Args:
        folder: of the files; it must exist.
        metadata: of the dataset, with the class names; None: classes are numbers.
        confidence: lowest score that is drawn.
        distributions: draw the distributions too; instances need `pred_box_distributions` and
            `bin_edges`.
    """

    def __init__(self, folder: str, metadata: Any, confidence: float, distributions: bool):
        self.folder = folder
        self.metadata, self.confidence = metadata, confidence
        self.distributions = distributions

    def _save(self, picture: np.ndarray, name: str) -> None:
        Image.fromarray(picture).save(os.path.join(self.folder, name))


class PictureFiles(_Pictures):
    """NAME_detections.png for each image; with ``distributions`` also NAME_distributions.png."""

    def add(self, name: str, image: np.ndarray, instances: Instances) -> None:
        """
        Args:
            name: of the files.
            image: (H, W, 3) uint8, RGB.
            instances: its detections, boxes in its pixels.
        """
        drawing = (image, instances, self.metadata, self.confidence)
        self._save(draw_detections(*drawing), f"{name}_detections.png")
        if self.distributions:
            self._save(draw_box_distributions(*drawing), f"{name}_distributions.png")

    def close(self) -> list[str]:
        """Returns the missing files, a sentence each: none."""
        return []


class PictureSheet(_Pictures):
    """One predictions.png of all images. If ``distributions`` is set, also a distributions.png of
    the images with the most boxes."""

    def __init__(self, folder: str, metadata: Any, confidence: float, distributions: bool):
        super().__init__(folder, metadata, confidence, distributions)
        self._titles: list[str] = []
        self._pictures: list[np.ndarray] = []
        self._rows: list[tuple[int, _Drawing]] = []  # with the number of boxes

    def add(self, name: str, image: np.ndarray, instances: Instances) -> None:
        """Adds an image, as :class:`PictureFiles` does; the name is its title."""
        drawing = (image, instances, self.metadata, self.confidence)
        self._titles.append(name)
        self._pictures.append(draw_detections(*drawing))
        found = min(int((instances.scores >= self.confidence).sum()), BOXES_A_ROW)
        if self.distributions and found:
            self._rows.append((found, drawing))

    def close(self) -> list[str]:
        """Writes the sheets; returns the missing ones, a sentence each."""
        if self._pictures:
            self._save(draw_grid(self._pictures, self._titles), "predictions.png")
        if self._rows:
            self._rows.sort(key=lambda row: -row[0])  # stable: the first images that fill a row
            best = [
                draw_box_distributions(*drawing, max_boxes=BOXES_A_ROW)
                for _, drawing in self._rows[:ROWS]
            ]
            sheet = draw_grid(best, columns=1, cell_width=1200)
            self._save(sheet, "distributions.png")
        elif self.distributions:
            return [f"no distributions.png: nothing scores at least {self.confidence}"]
        return []
