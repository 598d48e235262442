"""`nanoclaw bench storage`: what a claim, or a new one of a class, is good for, measured with pods of its own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from nanoclaw_runtime.cli import bench_pods, bench_run, render
from nanoclaw_runtime.cli import prerequisites_asked as asked
from nanoclaw_runtime.cli.bench_pods import Manifest, Place
from nanoclaw_runtime.cli.errors import CommandFailed
from nanoclaw_runtime.cli.given import Options
from nanoclaw_runtime.cli.installation import find_controller, find_namespace
from nanoclaw_runtime.cli.options import finish, line
from nanoclaw_runtime.cli.prerequisites import STORAGE_CLASSES
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.domain.storage_advice import RWO, RWOP, RWX, SEEN, Advice, Measured, What, Where, advise
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Forbidden, NotFound
from nanoclaw_runtime.kube.resources import CLAIMS

app = typer.Typer(help="Measure what the cluster gives to agents.", no_args_is_help=True)

_MODES: Final = (RWX, RWO, RWOP)


@app.callback()
def _group() -> None:
    """Measure what the cluster gives to agents."""


@dataclass(frozen=True)
class Wanted:
    """What the line asks for."""

    claim: str | None
    storage_class: str | None
    mode: str
    size: str
    nodes: tuple[str, ...]
    image: str | None
    rounds: int
    seconds: float


@app.command()
def storage(
    context: typer.Context,
    *,
    claim: Annotated[
        str | None, typer.Option(help="A claim of the namespace; measured in a folder of its own.")
    ] = None,
    storage_class: Annotated[
        str | None, typer.Option("--class", help="A StorageClass; a claim of it is made, and removed behind it.")
    ] = None,
    mode: Annotated[str, typer.Option(help="Access mode of that claim.")] = RWX,
    size: Annotated[str, typer.Option(help="Size of that claim.")] = "1Gi",
    nodes: Annotated[str, typer.Option(help="One node or two, as A,B; the scheduler's choice when left out.")] = "",
    image: Annotated[
        str | None, typer.Option(help="The controller's image; that of the installation if left out.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="Times that each thing is done.")] = 200,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="After which each part ends, done or not.")] = 20,
) -> None:
    """Measure a claim as agents use it, and recommend layout, access mode and transport.

    Makes up to three pods and removes them. Not on a claim that may not get 64 MiB of traffic now.
    """
    if (claim is None) == (storage_class is None):
        raise typer.BadParameter("name a claim or a class, and not both", param_hint="--claim, --class")
    if mode not in _MODES:
        raise typer.BadParameter(f"one of {', '.join(_MODES)}", param_hint="--mode")
    chosen = tuple(each for each in nodes.split(",") if each)
    options: Options = context.obj
    wanted = Wanted(claim, storage_class, mode, size, chosen, image, rounds, seconds)
    finish(_storage(options, wanted))


async def _storage(options: Options, wanted: Wanted) -> bool:
    _end_well()
    async with await KubeClient.connect(options.target.kubeconfig, options.target.context) as client:
        namespace = options.target.namespace or await find_namespace(client)
        run = f"nanoclaw-bench-{secrets.token_hex(3)}"
        async with _claim(client, namespace, run, wanted) as claim:
            place = await _place(client, namespace, run, claim["metadata"]["name"], wanted)
            outcome = await bench_run.measure(client, place, claim, wanted.nodes, _tell)
    advice = advise(outcome.measured, outcome.modes)
    if options.json:
        line(render.dump(_document(outcome, advice)))
    else:
        _print(outcome, advice)
    return True


@contextlib.asynccontextmanager
async def _claim(client: KubeClient, namespace: str, run: str, wanted: Wanted) -> AsyncIterator[Manifest]:
    if wanted.claim is not None:
        try:
            found = await client.get(CLAIMS, wanted.claim, namespace=namespace)
        except NotFound:
            raise CommandFailed(
                f"there is no claim {wanted.claim!r} in namespace {namespace!r}; name one that is there, or a class "
                "with --class"
            ) from None
        yield found
        return
    await _known(client, wanted.storage_class or "")
    made = bench_pods.claim(run, storage_class=wanted.storage_class or "", mode=wanted.mode, size=wanted.size)
    async with bench_run.made_claim(client, namespace, made) as there:
        yield there


async def _known(client: KubeClient, name: str) -> None:
    """A claim of a class that is not there would wait for ever; who may not look goes on."""
    with contextlib.suppress(Forbidden):
        there = [each["metadata"]["name"] for each in await client.list(STORAGE_CLASSES)]
        if name not in there:
            raise CommandFailed(f"there is no StorageClass {name!r}; there are {', '.join(there) or 'none'}")


async def _place(client: KubeClient, namespace: str, run: str, claim: str, wanted: Wanted) -> Place:
    """With image, pull secrets and tolerations of the installation's controller, where there is one."""
    openshift = bool(await asked.served(client, "security.openshift.io", ("v1",)))
    common: dict[str, Any] = {"openshift": openshift, "rounds": wanted.rounds, "seconds": wanted.seconds}
    try:
        controller = await find_controller(client, namespace)
    except NotFound:
        if wanted.image is None:
            raise CommandFailed(
                f"there is no {names.CONTROLLER} in namespace {namespace!r}; name an image with --image"
            ) from None
        return Place(run, claim, wanted.image, **common)
    spec = controller["spec"]["template"]["spec"]
    own = next(each for each in spec["containers"] if each["name"] == names.CONTROLLER_CONTAINER)
    return Place(
        run,
        claim,
        wanted.image or own["image"],
        pull_policy=own.get("imagePullPolicy", "IfNotPresent"),
        pull_secrets=tuple(spec.get("imagePullSecrets", ())),
        tolerations=tuple(spec.get("tolerations", ())),
        **common,
    )


def _end_well() -> None:
    """SIGTERM as Ctrl-C: pods and claim are removed on the way out."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _tell(step: str) -> None:
    typer.echo(step, err=True)


def _document(outcome: bench_run.Outcome, advice: list[Advice]) -> dict[str, Any]:
    return {
        "accessModes": outcome.modes,
        "nodes": outcome.nodes,
        "measured": [asdict(each) for each in outcome.measured],
        "skipped": outcome.skipped,
        "advice": [asdict(each) for each in advice],
    }


def _print(outcome: bench_run.Outcome, advice: list[Advice]) -> None:
    console = render.console()
    line(f"{', '.join(outcome.modes)}; nodes: {', '.join(outcome.nodes)}")
    for whats, title in ((SEEN, "ms until it is seen"), (_OWN, "ms"), (_RATES, "MB/s")):
        console.print(_table(title, [each for each in outcome.measured if each.what in whats]))
    for each in outcome.skipped:
        line(f"left out: {each}")
    for one in advice:
        line(f"{one.subject}: {one.choice}, because {one.because}")


_RATES: Final = tuple(what for what in What if what.is_rate)
_OWN: Final = tuple(what for what in What if what not in SEEN and not what.is_rate)


def _table(title: str, measured: list[Measured]) -> Table:
    table = Table(title, "where", box=None, header_style="bold")
    for column in ("n", "p50", "p99", "least", "most"):
        table.add_column(column, justify="right")
    order = list(Where)
    for each in sorted(measured, key=lambda each: (list(What).index(each.what), order.index(each.where))):
        scale = 1e-6 if each.what.is_rate else 1e3
        numbers = [f"{value * scale:,.3g}" if value * scale < 100 else f"{value * scale:,.0f}" for value in
                   (each.p50, each.p99, each.least, each.most)]  # fmt: skip
        table.add_row(each.what, each.where, str(each.count), *numbers[:3], numbers[3] + " never" * each.missed)
    return table
