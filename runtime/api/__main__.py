"""`python -m motorvae`: the command `motorvae`."""

import sys

from .startup import main, without_working_directory

without_working_directory()
sys.exit(main())
