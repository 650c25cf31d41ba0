"""The stages of a ResNet or ResNeXt for LazyConfigs, with deformable ones among them."""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.layers import CNNBlockBase
from detectron2.modeling.backbone.resnet import BottleneckBlock, ResNet

from .deformable import DeformBottleneckBlock

__all__ = ["bottleneck_stages", "make_resnet_stages", "res5_channels"]

_NUM_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def res5_channels(depth: int) -> int:
    """The number of channels of res5, for a top block that reads it.

    Args:
        depth: of :func:`make_resnet_stages`.
    """
    return 512 if depth in (18, 34) else 2048


def make_resnet_stages(
    *,
    depth: int,
    norm: str = "FrozenBN",
    num_groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = False,
    deform_on_per_stage: Sequence[bool] = (False, False, False, False),
    deform_modulated: bool = False,
    deform_num_groups: int = 1,
) -> list[list[CNNBlockBase]]:
    """The stages res2..res5 of a ResNet or ResNeXt, for ``detectron2.modeling.ResNet``.

    The arguments are the keys of MODEL.RESNETS; a ResNeXt 32x4d has 32 groups of width 4.

    Args:
        depth: 18, 34, 50, 101 or 152.
        norm: as ``detectron2.layers.get_norm`` takes it.
        num_groups: groups of the 3x3 convolutions.
        width_per_group: channels of one group in res2; doubled from stage to stage.
        stride_in_1x1: the first 1x1 convolution of a stage has the stride (MSRA's weights), not the
            3x3 one (torchvision's).
        deform_on_per_stage: whether the 3x3 convolutions of res2..res5 are deformable.
        deform_modulated: DCNv2 instead of DCN.
        deform_num_groups: groups of input channels with offsets of their own.

    Raises:
        ValueError: if there is no such depth, or an option needs bottlenecks and it has none.
    """
    if depth in (18, 34):
        if num_groups != 1 or width_per_group != 64 or any(deform_on_per_stage):
            raise ValueError(
                f"ResNet-{depth} has no bottlenecks: got num_groups {num_groups}, width_per_group "
                f"{width_per_group}, deform_on_per_stage {list(deform_on_per_stage)}; expected "
                "1, 64 and no deformable stage"
            )
        return ResNet.make_default_stages(depth, norm=norm)
    return bottleneck_stages(
        depth,
        (BottleneckBlock, DeformBottleneckBlock),
        num_groups * width_per_group,
        deform_on_per_stage,
        {"deform_modulated": deform_modulated, "deform_num_groups": deform_num_groups},
        norm=norm,
        num_groups=num_groups,
        stride_in_1x1=stride_in_1x1,
    )


def bottleneck_stages(
    depth: int,
    blocks: tuple[type[CNNBlockBase], type[CNNBlockBase]],
    width: int,
    deform_on_per_stage: Sequence[bool],
    deform_kwargs: Mapping[str, Any],
    **kwargs: Any,
) -> list[list[CNNBlockBase]]:
    """The stages res2..res5 of a network of bottlenecks.

    Args:
        depth: 50, 101 or 152.
        blocks: the plain block and its deformable sibling.
        width: bottleneck channels of res2; doubled from stage to stage.
        deform_on_per_stage: whether the blocks of res2..res5 are the deformable ones.
        deform_kwargs: of the deformable block alone.
        kwargs: of both blocks.

    Raises:
        ValueError: if there is no such depth, or not one value for each of the four stages.
    """
    if depth not in _NUM_BLOCKS:
        raise ValueError(f"depth is {depth!r}; expected one of {sorted(_NUM_BLOCKS)}")
    if len(deform_on_per_stage) != 4:
        raise ValueError(
            f"deform_on_per_stage is {list(deform_on_per_stage)}; expected four values, one for "
            "each of res2..res5"
        )
    stages, in_channels = [], 64
    for i, (num_blocks, deform) in enumerate(zip(_NUM_BLOCKS[depth], deform_on_per_stage)):
        out_channels = 256 * 2**i
        stages.append(
            ResNet.make_stage(
                blocks[bool(deform)],
                num_blocks,
                in_channels=in_channels,
                out_channels=out_channels,
                bottleneck_channels=width * 2**i,
                stride_per_block=[1 if i == 0 else 2] + [1] * (num_blocks - 1),
                **kwargs,
                **(deform_kwargs if deform else {}),
            )
        )
        in_channels = out_channels
    return stages
