"""`python -m motorvae.benchmarks.proof`: what `make gpu-proof` runs."""

import sys

from .cli import main

sys.exit(main())
