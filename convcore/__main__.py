"""`python -m convcore` is the `convcore` command."""

import sys

from convcore.cli import main

if __name__ == "__main__":
    sys.exit(main())
