"""`python -m motorvae.benchmarks.ood`."""

import sys

from .cli import main

sys.exit(main())
