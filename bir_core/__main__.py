"""`python -m bir_core` is `bir`."""

import sys

from .cli import main

sys.exit(main())
