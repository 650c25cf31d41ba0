"""What only Detectron2's main branch has, and the tests that need it."""

import pytest
from detectron2 import modeling

OF_MAIN = ("gflv2_MViTv2_T_FPN_36ep", "gflv2_Swin_T_FPN_3x", "gflv2_ViTDet_B_100ep")
needs_main = pytest.mark.skipif(
    not hasattr(modeling, "ViT"), reason="this Detectron2 has no ViT, Swin Transformer and MViT"
)
