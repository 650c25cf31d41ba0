"""Pictures of detections, and of the distributions of box sides.

Pictures are (H, W, 3) uint8 arrays in RGB order. matplotlib draws them without a display; small
images are enlarged so that labels can be read. Detectron2's Visualizer is not used: it imports cv2,
which neither Detectron2 nor this package requires.
"""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from detectron2.structures import Boxes, Instances
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..data.images import as_rgb
from .mask_pictures import paint_masks

__all__ = [
    "draw_box_distributions",
    "draw_detections",
    "draw_grid",
    "draw_training_image",
]

_DPI = 100
_TAB10 = matplotlib.colormaps["tab10"]
_CLASS_COLORS = [matplotlib.colors.to_hex(_TAB10(i)) for i in range(_TAB10.N)]
# left, top, right, bottom
SIDE_COLORS = ("#0072B2", "#009E73", "#D55E00", "#A64D79")


def draw_detections(
    image: np.ndarray, instances: Instances, metadata: Any = None, threshold: float = 0.5
) -> np.ndarray:
    """Draws boxes with their class and score, and masks where there are any.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: detections in the image's pixels: `pred_boxes`, `scores`, `pred_classes`, and
            `pred_masks` if there are any; or ground truth: `gt_boxes`, `gt_classes`, `gt_masks`.
        metadata: names the classes by its `thing_classes`; class indices are shown without it.
        threshold: detections with a lower score are left out.

    Returns:
        the picture; a small image is enlarged to 640 pixels.
    """
    _check_image(image)
    height, width = image.shape[:2]
    scale = max(1.0, 640 / max(height, width))
    figure = Figure(figsize=(width * scale / _DPI, height * scale / _DPI), dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    boxes, labels, colors, shown = _boxes_and_labels(instances, metadata, threshold)
    image = paint_masks(image, instances.to("cpu"), shown, colors)
    _draw_boxes(axes, image, boxes, labels, colors)
    return render(figure)


def draw_grid(
    pictures: Sequence[np.ndarray],
    titles: Sequence[str] = (),
    columns: int | None = None,
    cell_width: int = 480,
) -> np.ndarray:
    """Puts pictures of any size on one sheet.

    Args:
        pictures: (H, W, 3) uint8 RGB each.
        titles: written above the pictures; None for no titles.
        columns: by default the sheet is about square.
        cell_width: width of a cell, pixels; pictures are shrunk or enlarged to it.

    Returns:
        the sheet.

    Raises:
        ValueError: there are no pictures.
    """
    if not pictures:
        raise ValueError("there are no pictures to put on a sheet")
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    aspect = float(np.median([picture.shape[0] / picture.shape[1] for picture in pictures]))
    heading = 0.25 if titles else 0.0
    cell = cell_width / _DPI
    figure = Figure(figsize=(cell * columns, (cell * aspect + heading) * rows), dpi=_DPI)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, picture in zip(grid.flat, pictures):
        axes.imshow(picture)
    for axes, title in zip(grid.flat, titles):
        axes.set_title(title, fontsize=10)
    figure.tight_layout(pad=0.4)
    return render(figure)


def draw_box_distributions(
    image: np.ndarray,
    instances: Instances,
    metadata: Any = None,
    threshold: float = 0.5,
    max_boxes: int = 6,
) -> np.ndarray:
    """Draws the four distributions of each box, as Fig. 3 of GFLV1 shows them.

    On the left stands the whole image with numbered boxes. Then comes one panel a box. It has the
    box in the middle, and beside it the probability of every bin, drawn at the bin's pixel: along
    the x axis for left and right, along the y axis for top and bottom. The dashed line is the
    predicted side. A sharp edge gives a spike on it, an ambiguous one a wide or two-peaked shape.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: of :func:`gfocal.inspect.detect_with_distributions`, in the image's pixels.
        metadata: names the classes by its `thing_classes`; class indices are shown without it.
        threshold: detections with a lower score are left out.
        max_boxes: largest number of panels; the best-scored boxes get them.

    Returns:
        the picture.

    Raises:
        ValueError: the instances have no distributions.
    """
    _check_image(image)
    if not (instances.has("pred_box_distributions") and instances.has("bin_edges")):
        raise ValueError(
            "the instances have no pred_box_distributions and bin_edges; detect_with_distributions "
            "adds them"
        )
    instances = instances.to("cpu")
    instances = instances[instances.scores >= threshold]
    instances = instances[instances.scores.argsort(descending=True)[:max_boxes]]
    boxes, labels, colors, _ = _boxes_and_labels(instances, metadata, threshold)

    count = len(boxes)
    columns = min(count, 3) if count != 4 else 2
    rows = math.ceil(count / columns) if count else 1
    panel, height = 3.4, image.shape[0] / image.shape[1]
    overview = min(max(3.4 * rows / height, 3.4), 6.0)
    figure = Figure(figsize=(overview + panel * columns, panel * rows), dpi=_DPI)
    figure.set_facecolor("white")
    outer = figure.add_gridspec(
        1,
        1 + bool(count),
        width_ratios=[overview, panel * columns][: 1 + bool(count)],
        left=0.01,
        right=0.99,
        top=1 - 0.25 / (panel * rows),  # room for the titles of the first row
        bottom=0.02,
        wspace=0.04,
    )
    axes = figure.add_subplot(outer[0])
    _draw_boxes(axes, image, boxes, [str(i + 1) for i in range(count)], colors)
    if count:
        cells = outer[1].subgridspec(rows, columns, wspace=0.14, hspace=0.16)
        for i in range(count):
            _draw_distribution_panel(
                figure,
                cells[i // columns, i % columns],
                image,
                boxes[i],
                f"{i + 1}  {labels[i]}",
                instances.pred_box_distributions[i].numpy(),
                instances.bin_edges[i].numpy(),
            )
    return render(figure)


def draw_training_image(
    inputs: dict[str, Any], result: Instances, input_format: str = "BGR"
) -> np.ndarray:
    """Draws the ground truth of a training image, and below it the best detections.

    Args:
        inputs: the data loader's dict: "image" (C, H, W) and "instances".
        result: detections in the pixels of that image.
        input_format: of the image, see :func:`gfocal.data.images.as_rgb`.

    Returns:
        the picture, ground truth on top.
    """
    image = as_rgb(inputs["image"].detach().cpu().numpy().transpose(1, 2, 0), input_format)
    best = result[:20]
    return np.concatenate(
        [draw_detections(image, inputs["instances"]), draw_detections(image, best, threshold=0.0)]
    )


def _check_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = getattr(image, "dtype", type(image).__name__)
        raise TypeError(f"expected a uint8 RGB array (H, W, 3), got {got}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"expected an RGB image (H, W, 3), got shape {image.shape}")


def _boxes_and_labels(
    instances: Instances, metadata: Any, threshold: float
) -> tuple[np.ndarray, list[str], list[str], list[int]]:
    """Boxes (D, 4), labels, colours and indices of the instances that are shown."""
    instances = instances.to("cpu")
    predicted = instances.has("pred_boxes")
    boxes: Boxes = instances.pred_boxes if predicted else instances.gt_boxes
    classes = (instances.pred_classes if predicted else instances.gt_classes).tolist()
    names = getattr(metadata, "thing_classes", None) or []
    labels = [names[c] if c < len(names) else f"class {c}" for c in classes]
    shown = list(range(len(classes)))
    if instances.has("scores"):
        scores = instances.scores.tolist()
        labels = [f"{label} {score:.2f}" for label, score in zip(labels, scores)]
        shown = [i for i in shown if scores[i] >= threshold]
    colors = [_CLASS_COLORS[c % len(_CLASS_COLORS)] for c in classes]
    array = boxes.tensor.detach().numpy()[shown]
    return array, [labels[i] for i in shown], [colors[i] for i in shown], shown


def _draw_boxes(
    axes: Axes,
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[str],
    colors: Sequence[str],
) -> None:
    height, width = image.shape[:2]
    # In the coordinates of boxes a pixel's left edge, not its centre, is a whole number.
    axes.imshow(image, extent=(0, width, height, 0), interpolation="bilinear")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    for (x0, y0, x1, y1), label, color in reversed(list(zip(boxes, labels, colors))):
        axes.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=2)
        )
        above = y0 > 0.04 * height
        axes.annotate(
            label,
            (x0, y0),
            xytext=(0, 1 if above else -1),
            textcoords="offset points",
            ha="left" if x0 < 0.85 * width else "center",
            va="bottom" if above else "top",
            fontsize=9,
            color="white",
            clip_on=True,
            bbox={"facecolor": color, "edgecolor": "none", "pad": 1.2, "alpha": 0.9},
        )


def _draw_distribution_panel(
    figure: Figure,
    cell: Any,
    image: np.ndarray,
    box: np.ndarray,
    title: str,
    probs: np.ndarray,
    edges: np.ndarray,
) -> None:
    """One box with the distributions of its sides; probs and edges are (4, C)."""
    inner = cell.subgridspec(2, 2, width_ratios=[3, 1], height_ratios=[3, 1], wspace=0, hspace=0)
    picture = figure.add_subplot(inner[0, 0])
    below = figure.add_subplot(inner[1, 0], sharex=picture)
    beside = figure.add_subplot(inner[0, 1], sharey=picture)
    _draw_surroundings(picture, image, box, probs, edges)
    picture.set_title(title, fontsize=10, loc="left", pad=3)
    for side in range(4):
        _draw_side(picture, beside if side % 2 else below, side, box, probs[side], edges[side])
    top = 1.15 * probs.max()
    below.set_ylim(top, 0)  # bars hang from the picture
    beside.set_xlim(0, top)
    _name_sides(below, beside)
    for axes in (picture, below, beside):
        axes.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False)
        for spine in axes.spines.values():
            spine.set_color("0.6")


def _draw_surroundings(
    axes: Axes, image: np.ndarray, box: np.ndarray, probs: np.ndarray, edges: np.ndarray
) -> None:
    """A square of the image around a box, wide enough for its distributions."""
    center = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    radius = 0.8 * max(box[2] - box[0], box[3] - box[1])
    for side in range(4):
        likely = probs[side] > 0.05 * probs[side].max()
        radius = max(radius, 1.1 * np.abs(edges[side][likely] - center[side % 2]).max())
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), interpolation="bilinear", aspect="auto")
    axes.set_xlim(center[0] - radius, center[0] + radius)
    axes.set_ylim(center[1] + radius, center[1] - radius)
    axes.set_facecolor("0.85")  # beyond the image


def _draw_side(
    picture: Axes, margin: Axes, side: int, box: np.ndarray, probs: np.ndarray, edges: np.ndarray
) -> None:
    """A side of the box in the picture, its bins in the margin; probs and edges are (C,)."""
    color = SIDE_COLORS[side]
    # A bar reaches halfway to the bins beside its own, but for a gap; edges may decrease.
    middles = (edges[1:] + edges[:-1]) / 2
    middles = np.concatenate([2 * edges[:1] - middles[:1], middles, 2 * edges[-1:] - middles[-1:]])
    first, last = (edges + 0.9 * (x - edges) for x in (middles[:-1], middles[1:]))
    bars: dict[str, Any] = {"color": color, "alpha": 0.85}
    guide: dict[str, Any] = {"color": color, "linestyle": "--", "linewidth": 0.8}
    if side % 2 == 0:
        margin.bar(first, probs, width=last - first, align="edge", **bars)
        for axes in (picture, margin):
            axes.axvline(box[side], **guide)
        ends = ([box[side], box[side]], [box[1], box[3]])
    else:
        margin.barh(first, probs, height=last - first, align="edge", **bars)
        for axes in (picture, margin):
            axes.axhline(box[side], **guide)
        ends = ([box[0], box[2]], [box[side], box[side]])
    picture.plot(*ends, color=color, linewidth=2.5, solid_capstyle="butt")


def _name_sides(below: Axes, beside: Axes) -> None:
    for axes, x, y, name, color in (
        (below, 0.02, 0.04, "left", SIDE_COLORS[0]),
        (beside, 0.96, 0.93, "top", SIDE_COLORS[1]),
        (below, 0.98, 0.04, "right", SIDE_COLORS[2]),
        (beside, 0.96, 0.02, "bottom", SIDE_COLORS[3]),
    ):
        axes.text(
            x,
            y,
            name,
            color=color,
            transform=axes.transAxes,
            ha="left" if x < 0.5 else "right",
            fontsize=8,
            fontweight="bold",
        )


def render(figure: Figure) -> np.ndarray:
    """A figure as a picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
