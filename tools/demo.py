"""Draws a detector's boxes on images: gfocal.cli.demo."""

import sys

from gfocal.cli.demo import main

if __name__ == "__main__":
    sys.exit(main())
