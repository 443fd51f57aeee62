"""`python -m fusion_nets COMMAND ...`, the same as `fusion-nets`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
