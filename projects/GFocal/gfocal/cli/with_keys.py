"""Runs a script that makes Detectron2's yacs config itself, such as Detectron2's own
tools/train_net.py, as if its ``get_cfg()`` knew gfocal's keys:

    python -m gfocal.cli.with_keys tools/train_net.py --config-file C ...
"""

import os
import sys
from pathlib import Path

from ..config import add_gfocal_config

_SCRIPT = "GFOCAL_WITH_KEYS"  # in the environment, for the processes that the script starts

if __name__ == "__main__":
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_file():
        sys.exit(f"{__doc__}\nNo such script: {' '.join(sys.argv[1:2]) or 'none is named'}")
    del sys.argv[0]
    os.environ[_SCRIPT] = str(Path(sys.argv[0]).resolve())
    sys.path.insert(0, str(Path(os.environ[_SCRIPT]).parent))  # as `python SCRIPT` has it

# A process that the script starts has the second name, and needs what the script defines.
if __name__ in ("__main__", "__mp_main__"):
    add_gfocal_config()
    __file__ = os.environ[_SCRIPT]
    exec(compile(Path(__file__).read_bytes(), __file__, "exec", dont_inherit=True))  # noqa: S102
