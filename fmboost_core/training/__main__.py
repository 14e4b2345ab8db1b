"""`python -m fmboost_core.training encode | train | train-codec | recipe`, the same as `fmboost encode` and so on.

Under a launcher (`accelerate launch -m fmboost_core.training ...`) all processes and machines share the work.
"""

from __future__ import annotations

import sys

from ..cli.app import main

if __name__ == "__main__":
    sys.exit(main())
