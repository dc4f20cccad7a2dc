"""`python -m motorvae`: the command `motorvae`, which imports nothing from the working directory.

`python -m` puts that first. `python -P` and PYTHONSAFEPATH keep it out from Python 3.11 on; what
PYTHONPATH names stays: it is the user's word.
"""

import os
import sys

# Before anything else is imported: a signal.py there would be taken for the standard library's.
if not getattr(sys.flags, "safe_path", False) and sys.path[:1] == [os.getcwd()]:  # noqa: PTH109  # pathlib would be most of the import
    sys.path.pop(0)

from .startup import main  # only now

sys.exit(main())
