"""Times the package beside the straightforward formulation of the papers: gfocal.cli.benchmark."""

import sys

from gfocal.cli.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
