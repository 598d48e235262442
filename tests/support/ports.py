"""A port for a server that has to know it before it begins, or comes back on it."""

from __future__ import annotations

import random
import socket

from nanoclaw_dev.cluster.instance import FIRST_PORT

_LOWEST = 11_000
# Above those of a kubelet.


def free_port() -> int:
    """A port of loopback on which nobody listens.

    It is not one of those the kernel gives to whoever asks for any, nor of a cluster: between this call and the server,
    or while the server is away, hundreds of connections are made on this machine.
    """
    while True:
        port = random.randrange(_LOWEST, FIRST_PORT)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
