"""Converts a checkpoint of mmdetection into one of ours, or back: gfocal.cli.convert."""

import sys

from gfocal.cli.convert import main

if __name__ == "__main__":
    sys.exit(main())
