"""Counts parameters and FLOPs: gfocal.cli.analyze."""

import sys

from gfocal.cli.analyze import main

if __name__ == "__main__":
    sys.exit(main())
