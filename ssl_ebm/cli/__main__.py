"""``python -m ssl_ebm.cli``."""

import sys

from ssl_ebm.cli import main

if __name__ == "__main__":
    sys.exit(main())
