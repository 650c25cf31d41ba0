"""CenterNet: mmdetection's CenterNetHead behind a CTResNetNeck, plain or deformable."""

from ..names import DetectorTable

__all__ = ["CENTERNET"]

# Their layers are in one list: a convolution, a transposed one, and so on.
_NECK = tuple(
    row
    for i in range(3)
    for row in (
        (f"neck.deconv_layers.{2 * i}.conv.*", f"backbone.blocks.{i}.conv.*"),
        (f"neck.deconv_layers.{2 * i}.conv.conv_offset.*", f"backbone.blocks.{i}.conv_offset.*"),
        (f"neck.deconv_layers.{2 * i}.bn.*", f"backbone.blocks.{i}.conv.norm.*"),
        (f"neck.deconv_layers.{2 * i + 1}.conv.*", f"backbone.blocks.{i}.up.*"),
        (f"neck.deconv_layers.{2 * i + 1}.bn.*", f"backbone.blocks.{i}.up_norm.*"),
    )
)

CENTERNET = DetectorTable(
    detector="CenterNet",
    theirs="neck.deconv_layers.",
    ours="head.branches.heatmap.",
    rows=(
        *_NECK,
        ("bbox_head.heatmap_head.#.*", "head.branches.heatmap.#.*"),
        ("bbox_head.wh_head.#.*", "head.branches.wh.#.*"),
        ("bbox_head.offset_head.#.*", "head.branches.offset.#.*"),
    ),
    class_layer="head.branches.heatmap.2",
)
