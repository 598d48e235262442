"""`make up`, `make down`, `make preview`, `make env`: from a checkout to an answered message, and back.

Only the order of things is here; engine, cluster and images each know how they are made. All that
a machine may lack is checked before the first of them starts.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nanoclaw_dev import engine_binaries, gomodules, images, modules, system
from nanoclaw_dev.cluster import cgroups, network
from nanoclaw_dev.cluster.cluster import Cluster
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.engine import Engine
from nanoclaw_dev.engine_binaries import EngineBinaries
from nanoclaw_dev.errors import SetupError
from nanoclaw_dev.paths import CACHE
from nanoclaw_dev.progress import Progress
from nanoclaw_runtime.contract import names

STACK = "local"
PASSPHRASE = "local"
# Nothing of the local stack is secret; the word is written in its file.

GROUP, GREETING = "main", "hello"
READY = 120
# Seconds for a controller whose objects are there; a quiet machine needs three.
ANSWER = 120
# Seconds for the first answer; a quiet machine needs two.


def up(progress: Progress) -> None:
    """Everything up and a first message answered. Raises SetupError with one sentence and its remedy."""
    cluster = Cluster(Instance())
    _check(cluster)
    system.install_missing({**system.CLUSTER_PACKAGES, **system.IMAGE_PACKAGES}, progress)
    binaries = engine_binaries.find(progress)
    gomodules.build_missing(modules.CLUSTER, progress)
    cluster.start(progress)
    variables = _images(cluster, progress)
    engine = _engine(binaries, cluster, variables)
    with progress.step(f"pulumi up, stack {STACK}") as step:
        engine.init(STACK)
        engine.up(STACK, step)
    namespace = engine.outputs(STACK)["namespace"]
    with progress.step("Waiting for the controller"):
        _await_controller(cluster, namespace)
    with progress.step(f"Sending {GREETING!r} to {GROUP}"):
        answer = _ask(cluster.kubeconfig, namespace)
    _tell(progress, cluster, namespace, answer)


def down(progress: Progress) -> None:
    """The stack destroyed and the cluster stopped; says what is left on disk and how to remove it."""
    cluster = Cluster(Instance())
    system.check_root()
    state = _engine_state(cluster)
    if state.is_dir():
        binaries = engine_binaries.present()
        if binaries is None:
            # Without an engine the stack goes with the cluster it is in.
            with progress.step("Removing the cluster with all that is in it"):
                cluster.remove()
        else:
            _destroy(_engine(binaries, cluster, {}), cluster, progress)
    with progress.step("Stopping Kubernetes"):
        cluster.stop()
    for folder, what in ((cluster.instance.folder, "the cluster's state and images"), (CACHE, "binaries and images")):
        if folder.is_dir():
            progress.say(f"Left for a faster next time: {what}. To remove them: rm -r {shlex.quote(str(folder))}")


def preview(progress: Progress, stack: str) -> None:
    """Print what `pulumi up` would change in a stack. Raises SetupError when it cannot be told."""
    if stack != STACK:
        Engine(engine_binaries.find(progress), state=None).show_preview(stack)
        return
    cluster = _running(", or name a stack by STACK=…")
    engine = _engine(engine_binaries.find(progress), cluster, _images(cluster, progress))
    engine.init(STACK)
    engine.show_preview(STACK)


def env(_: Progress) -> None:
    """Print what a shell needs to work on this cluster with `pulumi`, `kubectl` and `nanoclaw` themselves.

    For `eval "$(make env)"`. Raises SetupError when the cluster does not run.
    """
    progress = Progress(sys.stderr)  # stdout is for the shell
    cluster = _running("")
    binaries = engine_binaries.find(progress)
    engine = _engine(binaries, cluster, _images(cluster, progress))
    engine.init(STACK)
    programs = (str(binaries.cli.parent), str(Path(sys.executable).parent))
    wanted = {
        **{name: value for name, value in engine.shell_environment().items() if os.environ.get(name) != value},
        "KUBECONFIG": str(cluster.kubeconfig),
        "PATH": os.pathsep.join(dict.fromkeys([*programs, *os.environ.get("PATH", "").split(os.pathsep)])),
    }
    for name, value in sorted(wanted.items()):
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


def _running(remedy: str) -> Cluster:
    cluster = Cluster(Instance())
    if not cluster.status().ready:
        raise SetupError(f"The cluster of stack {STACK!r} does not run: run `make up` first{remedy}.")
    return cluster


def _check(cluster: Cluster) -> None:
    """Whatever can be known beforehand, before anything is built, installed or started."""
    system.check_root()
    cgroups.check_controllers(cgroups.hierarchies())
    gomodules.check_buildable(modules.CLUSTER)
    if not cluster.status().processes:
        system.check_space(cluster.instance.folder)
        network.check_addresses(cluster.instance)
        instance = cluster.instance
        ports = (
            instance.etcd_port,
            instance.etcd_peer_port,
            instance.controller_manager_port,
            instance.scheduler_port,
        )
        system.check_ports(("127.0.0.1", port) for port in ports)


def _images(cluster: Cluster, progress: Progress) -> dict[str, str]:
    """Build what changed, give it to the cluster, and name it for the stack."""
    runtime, agent = images.build_images(progress)
    with progress.step("Loading the images into the cluster") as step:
        for image in (runtime, agent):
            step.note(image.reference)
            cluster.import_image(image.archive)
    return {"NANOCLAW_RUNTIME_IMAGE": runtime.reference, "NANOCLAW_AGENT_IMAGE": agent.reference}


def _engine_state(cluster: Cluster) -> Path:
    return cluster.instance.folder / "pulumi"


def _engine(binaries: EngineBinaries, cluster: Cluster, variables: dict[str, str]) -> Engine:
    ours = {
        "NANOCLAW_KUBECONFIG": str(cluster.kubeconfig),
        # As pods get there: behind the Service `kubernetes`, the API server listens on the bridge.
        "NANOCLAW_API_SERVER": cluster.instance.bridge_address,
        "NANOCLAW_API_PORT": str(cluster.instance.api_port),
    }
    return Engine(
        binaries,
        state=_engine_state(cluster),
        passphrase=os.environ.get("PULUMI_CONFIG_PASSPHRASE") or PASSPHRASE,
        variables=variables | ours,
    )


def _destroy(engine: Engine, cluster: Cluster, progress: Progress) -> None:
    engine.end_strays()
    engine.init(STACK)
    if not engine.resources(STACK):
        return
    cluster.start(progress)  # objects can only be deleted through a running API
    with progress.step(f"pulumi destroy, stack {STACK}") as step:
        engine.destroy(STACK, step)
    engine.remove(STACK)


def _await_controller(cluster: Cluster, namespace: str) -> None:
    """Return when the pod of the newest settings serves.

    Seen once: the engine called a roll-out done, and the Service had no endpoint yet.
    """
    api = cluster.control_plane.api
    deployment = f"/apis/apps/v1/namespaces/{namespace}/deployments/{names.CONTROLLER}"
    endpoints = f"/api/v1/namespaces/{namespace}/endpoints/{names.CONTROLLER}"
    deadline = time.monotonic() + READY
    while True:
        if _rolled_out(api.get(deployment)) and any("addresses" in each for each in _subsets(api.get(endpoints))):
            return
        if time.monotonic() > deadline:
            raise SetupError(
                f"The controller is not ready after {READY} s: see why with "
                f"`{shlex.join([*_nanoclaw(cluster.kubeconfig, namespace), 'doctor'])}`."
            )
        time.sleep(0.2)


def _rolled_out(deployment: Mapping[str, Any] | None) -> bool:
    """Whether the status is about the newest generation, and its one pod is available."""
    if deployment is None:
        return False
    status = deployment["status"]
    return bool(
        status.get("observedGeneration") == deployment["metadata"]["generation"]
        and status.get("updatedReplicas") == status.get("availableReplicas") == 1
    )


def _subsets(endpoints: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    subsets: Sequence[Mapping[str, Any]] = (endpoints or {}).get("subsets") or ()
    return subsets


def _nanoclaw(kubeconfig: Path, namespace: str) -> list[str]:
    program = Path(sys.executable).with_name("nanoclaw")
    return [str(program), "--kubeconfig", str(kubeconfig), "--namespace", namespace]


def _ask(kubeconfig: Path, namespace: str) -> str:
    """The agent's answer to the greeting, by the command line everybody uses."""
    command = [*_nanoclaw(kubeconfig, namespace), "send", GROUP, GREETING, "--follow", "--timeout", str(ANSWER)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SetupError(
            f"The message was not answered: {(result.stderr or result.stdout).strip()} Find out more with "
            f"`{shlex.join([*_nanoclaw(kubeconfig, namespace), 'doctor'])}`."
        )
    return result.stdout.strip()


def _tell(progress: Progress, cluster: Cluster, namespace: str, answer: str) -> None:
    progress.say()
    progress.say(f"  {GROUP} ← {GREETING}")
    progress.say(f"  {GROUP} → {answer}")
    progress.say()
    progress.say("Go on with:")
    program = os.path.relpath(_nanoclaw(cluster.kubeconfig, namespace)[0])
    progress.say(f"  export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))} NANOCLAW_NAMESPACE={namespace}")
    progress.say(f'  {program} send {GROUP} "sleep 3; echo done" --follow')
    progress.say(f"  {program} sessions")
    progress.say(f"  {program} doctor")
    progress.say('  eval "$(make env)"   # for `pulumi up --stack local` after a change of stacks/Pulumi.local.yaml')
    progress.say("  make down")
