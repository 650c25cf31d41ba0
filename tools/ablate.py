"""Trains the rows of one of the paper's ablation tables: gfocal.cli.ablate."""

import sys

from gfocal.cli.ablate import main

if __name__ == "__main__":
    sys.exit(main())
