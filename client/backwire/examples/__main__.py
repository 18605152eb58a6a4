"""Lists the examples: `python -m backwire.examples`."""

import sys

from backwire import examples

if __name__ == "__main__":
    sys.stdout.write(str(examples.__doc__))
