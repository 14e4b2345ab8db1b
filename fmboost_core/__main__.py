"""`python -m fmboost_core`, the same as the command `fmboost`."""

import sys

from .cli.app import main

if __name__ == "__main__":
    sys.exit(main())
