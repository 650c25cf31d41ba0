"""Trains or evaluates a detector: gfocal.cli.train."""

import sys

from gfocal.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
