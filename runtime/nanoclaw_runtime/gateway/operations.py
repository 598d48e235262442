"""The port of kubelet and Prometheus. Agents do not get there: what each group uses is in the metrics."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from nanoclaw_runtime.domain.errors import SettingsInvalid
from nanoclaw_runtime.gateway.settings import GatewaySettings


def operations_app(settings: GatewaySettings, registry: CollectorRegistry) -> web.Application:
    """Alive, ready, metrics. Ready means that both Secrets are there, so `pulumi up` tells of one that is not."""

    async def alive(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_request: web.Request) -> web.Response:
        try:
            settings.credential(), settings.signing_key()
        except SettingsInvalid as error:
            return web.Response(text=f"{error}\n", status=503)
        return web.Response(text="ok\n")

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", alive), web.get("/readyz", ready), web.get("/metrics", metrics)])
    return app
