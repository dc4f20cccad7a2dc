"""`python -m motorvae.benchmarks.demo`: what `make demo` runs."""

import sys

from .cli import main

sys.exit(main())
