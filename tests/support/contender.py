"""A process that wants a lease: says on stdout when it holds it, or notes in a file each look at which it does.

`python contender.py KUBECONFIG NAMESPACE LEASE NAME [FILE]`; in it stand its name, since when, and when it looked.
"""

import asyncio
import contextlib
import logging
import signal
import sys
import time
from pathlib import Path

import structlog

from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.lease import Election, Timing

QUICK = Timing(duration=1.0, renew=0.1, margin=0.4)


async def main(kubeconfig: str, namespace: str, lease: str, name: str, file: str = "") -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with await KubeClient.connect(Path(kubeconfig)) as client:
        election = Election(client, lease, name, namespace=namespace, timing=QUICK)
        life = asyncio.create_task(election.run())
        since, held = 0.0, False
        while not stop.is_set():
            # The look and the clock belong together: held now means that nobody else may be, now.
            now, holds = time.monotonic(), election.held
            if holds and not held:
                since = now
            if holds and file:
                note(file, name, since, now)
            if holds != held and not file:
                print("held", holds, flush=True)
            held = holds
            await asyncio.sleep(0.01)
        life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await life


def note(file: str, name: str, since: float, now: float) -> None:
    with Path(file).open("a") as record:
        record.write(f"{name} {since} {now}\n")


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
    )  # stdout is for the marks
    asyncio.run(main(*sys.argv[1:]))
