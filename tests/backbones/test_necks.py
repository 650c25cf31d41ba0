"""P6/P7 without a ReLU."""

import torch

from gfocal.backbones import LinearP6P7


def test_p7_is_linear_in_p5():
    """Without biases P7 is a linear map of P5: a ReLU in between would break f(-x) = -f(x)."""
    block = LinearP6P7(4, 4)
    x = torch.randn(1, 4, 9, 12)
    p6, p7 = block(x)
    assert p6.shape == (1, 4, 5, 6) and p7.shape == (1, 4, 3, 3)
    assert (p6 < 0).any()
    torch.testing.assert_close(block(-x)[1], -p7)
    torch.testing.assert_close(block.p7(p6), p7)
