"""Exports a detector to ONNX, TorchScript or torch.export: gfocal.cli.export."""

import sys

from gfocal.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
