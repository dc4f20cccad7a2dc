"""`python -m motorvae`: the command `motorvae`."""

import sys

from .commands import main

sys.exit(main())
