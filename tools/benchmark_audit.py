"""Measures how well mistakes in annotations are found: gfocal.cli.benchmark_audit."""

import sys

from gfocal.cli.benchmark_audit import main

if __name__ == "__main__":
    sys.exit(main())
