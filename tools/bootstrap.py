"""The first thing `make` runs, on whatever `python3` is: finds one that is new enough and makes .venv.

Only this file has to be readable for an old Python; the work is in `nanoclaw_dev.environment`.
"""

import os
import shutil
import sys

OLDEST = (3, 11)
NEWEST = 20
# Minor versions looked for on PATH when `python3` is too old.


def main() -> int:
    """Returns the exit code."""
    if sys.version_info < OLDEST:
        for minor in range(NEWEST, OLDEST[1] - 1, -1):
            found = shutil.which(f"python3.{minor}")
            if found:
                os.execv(found, [found, *sys.argv])
        have = ".".join(map(str, sys.version_info[:3]))
        sys.exit(f"Python 3.11 or newer is needed and python3 is {have}: install one, it may lie beside the old one.")
    from nanoclaw_dev import environment  # noqa: PLC0415  its syntax needs the newer Python

    return environment.main()


sys.exit(main())
