"""A whole host with its API on loopback, in a thread of its own, for callers that are not asynchronous."""

import asyncio
import threading

from nanoclaw_runtime.api.app import create_app
from nanoclaw_runtime.api.host import host_routers
from nanoclaw_runtime.api.server import listen, serve_on
from nanoclaw_runtime.telemetry import Metrics
from tests.support.house import House

TOKEN = "correct horse"


def whole_api(host):
    return create_app(host.controller, lambda: TOKEN, Metrics(), host_routers(host))


class ServedHost:
    """Use it as a context manager; `prepare(house)` is awaited before it is served."""

    def __init__(self, folder, prepare=None, **config):
        self._folder, self._prepare, self._config = folder, prepare, config
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="served host")

    def __enter__(self):
        self._thread.start()
        while not self._ready.wait(1):
            assert self._thread.is_alive(), "it ended before it served"
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def do(self, work):
        """What `work(house)` gives, a coroutine run where the host lives."""
        return asyncio.run_coroutine_threadsafe(work(self.house), self._loop).result()

    async def _live(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with House(self._folder, **self._config) as self.house:
            if self._prepare is not None:
                await self._prepare(self.house)
            listener = listen("127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            serving = asyncio.create_task(serve_on(whole_api(self.house.host), listener))
            self._ready.set()
            await self._over.wait()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
