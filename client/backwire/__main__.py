"""Runs the command line: `python -m backwire` is the same as `backwire`."""

import sys

from backwire._cli._main import main

if __name__ == "__main__":
    sys.exit(main())
