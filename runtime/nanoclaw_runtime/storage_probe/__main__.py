"""`python -m nanoclaw_runtime.storage_probe`: obeys SIGTERM from its first moment on.

As the first process of a container it hears of no signal that it does not ask for, and would be killed only
`GRACE` seconds later. What it does is `sides`, whose imports may take a second.
"""

from __future__ import annotations

import signal
import sys


def _stop(*_: object) -> None:
    sys.exit(143)  # as the shell has it for SIGTERM; `finally` removes the folder


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    from nanoclaw_runtime.storage_probe import sides

    sides.main()
