"""CornerNet: mmdetection's CornerHead on a HourglassNet."""

from ..names import DetectorTable, Row

__all__ = ["CORNERNET"]


def _residual(theirs: str, ours: str) -> list[Row]:
    """A residual block: two convolutions, perhaps a shortcut, each with its norm."""
    return [
        (f"{theirs}.conv#.*", f"{ours}.conv#.*"),
        (f"{theirs}.bn#.*", f"{ours}.conv#.norm.*"),
        (f"{theirs}.downsample.0.*", f"{ours}.shortcut.*"),
        (f"{theirs}.downsample.1.*", f"{ours}.shortcut.norm.*"),
    ]


def _convolution(theirs: str, ours: str) -> list[Row]:
    """A convolution with its norm."""
    return [(f"{theirs}.conv.*", f"{ours}.*"), (f"{theirs}.bn.*", f"{ours}.norm.*")]


def _hourglass(depth: int) -> list[Row]:
    """An hourglass inside of ``depth`` others; "low2" and "inner" of the last one are blocks."""
    theirs = "backbone.hourglass_modules.#" + ".low2" * depth
    ours = "backbone.hourglasses.#" + ".inner" * depth
    blocks = {"up1": "skip", "low1": "down", "low2": "inner", "low3": "up"}
    return [
        row
        for their_name, our_name in blocks.items()
        for row in _residual(f"{theirs}.{their_name}.#", f"{ours}.{our_name}.#")
    ]


def _head() -> list[Row]:
    rows: list[Row] = []
    pool = {
        "direction1_conv": "over_rows",
        "direction2_conv": "over_columns",
        "aftpool_conv": "merge",
        "conv1": "shortcut",
        "conv2": "out",
    }
    outputs = {"heat": "heat", "emb": "embedding", "off": "offset"}
    for short, corner in (("tl", "top_left"), ("br", "bottom_right")):
        for theirs, ours in pool.items():
            rows += _convolution(
                f"bbox_head.{short}_pool.#.{theirs}", f"head.{corner}.#.pool.{ours}"
            )
        for theirs, ours in outputs.items():
            rows.append((f"bbox_head.{short}_{theirs}.#.#.conv.*", f"head.{corner}.#.{ours}.#.*"))
    return rows


CORNERNET = DetectorTable(
    detector="CornerNet",
    theirs="bbox_head.tl_heat.",
    ours="head.top_left.",
    rows=tuple(_head()),
    class_layer="head.top_left.0.heat.1",
    backbone=(
        *_convolution("backbone.stem.0", "backbone.stem.0"),
        *_residual("backbone.stem.1.0", "backbone.stem.1"),
        *(row for depth in range(5) for row in _hourglass(depth)),
        *_convolution("backbone.out_convs.#", "backbone.outputs.#"),
        *_convolution("backbone.conv1x1s.#", "backbone.from_inputs.#"),
        *_convolution("backbone.remap_convs.#", "backbone.from_outputs.#"),
        *_residual("backbone.inters.#", "backbone.merges.#"),
    ),
)
