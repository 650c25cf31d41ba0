"""How images are padded before a network, below and to the right. Without PyTorch."""

from typing import Any, NamedTuple

__all__ = ["NO_PADDING", "Padding", "Size"]

Size = tuple[int, int]  # height, width


class Padding(NamedTuple):
    """A backbone's rule.

    Attributes:
        divisibility: the sides become multiples of it, pixels.
        square: before that, both sides become so long, pixels; 0: they stay.
    """

    divisibility: int = 1
    square: int = 0

    @classmethod
    def of(cls, backbone: Any) -> "Padding":
        """The ``padding_constraints`` of a backbone, or its ``size_divisibility`` where it has none
        (Detectron2 0.5 knows no others)."""
        constraints = getattr(backbone, "padding_constraints", None) or {}
        divisibility = getattr(backbone, "size_divisibility", 0)
        # Detectron2's SimpleFeaturePyramid misspells the key, and nothing there reads it. A ViT has
        # no location in the last columns of an image that is not padded.
        for key in ("size_divisiblity", "size_divisibility"):
            divisibility = constraints.get(key, divisibility)
        return cls(max(int(divisibility), 1), int(constraints.get("square_size", 0)))

    def size(self, size: Size, name: str = "an image") -> Size:
        """The size of an image with its padding.

        Args:
            size: without.
            name: of the image, for the error.

        Raises:
            ValueError: the image is larger than the square.
        """
        height, width = size
        if self.square:
            if max(size) > self.square:
                raise ValueError(
                    f"{name} has {height} x {width} px in the network, and the backbone pads to "
                    f"{self.square} x {self.square}; expected no longer side (its square_pad, or "
                    "the sizes of the augmentations: max_size, INPUT.MAX_SIZE_*)"
                )
            height = width = self.square
        step = self.divisibility
        return -(-height // step) * step, -(-width // step) * step


NO_PADDING = Padding()
