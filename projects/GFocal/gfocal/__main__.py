"""python -m gfocal: the command `gfocal`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
