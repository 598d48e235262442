"""The port of kubelet, Prometheus and operators. Agents do not get there: it tells what each group uses."""

from __future__ import annotations

from datetime import date

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from nanoclaw_runtime.contract.gateway import UsageList
from nanoclaw_runtime.domain.errors import SettingsInvalid
from nanoclaw_runtime.gateway.ledger import Ledger
from nanoclaw_runtime.gateway.settings import GatewaySettings


def operations_app(settings: GatewaySettings, registry: CollectorRegistry, ledger: Ledger) -> web.Application:
    """Alive, ready, metrics, usage. Ready means that both Secrets are there: `pulumi up` tells of one that is not."""

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

    async def usage(request: web.Request) -> web.Response:
        try:
            since = date.fromisoformat(request.query["since"])
        except (KeyError, ValueError):
            return web.Response(text="say ?since=YYYY-MM-DD\n", status=400)
        found = UsageList(usage=tuple(await ledger.since(since)))
        return web.Response(text=found.model_dump_json(by_alias=True), content_type="application/json")

    app = web.Application()
    app.add_routes([web.get("/healthz", alive), web.get("/readyz", ready), web.get("/metrics", metrics)])
    app.add_routes([web.get("/usage", usage)])
    return app
