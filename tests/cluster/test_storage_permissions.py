"""Volumes that nobody gives to the agent: hostPath ones, which root owns. Without the setting it cannot write."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanoclaw_runtime.backends.cluster import ClusterBackend
from nanoclaw_runtime.cli import doctor_volumes
from nanoclaw_runtime.cli.doctor import Verdict
from nanoclaw_runtime.cli.examine import VOLUMES
from nanoclaw_runtime.contract import claims, names
from nanoclaw_runtime.contract.claims import Layout
from nanoclaw_runtime.kube.resources import CLAIMS
from tests.support.backend_suite import results, spec
from tests.support.job_site import ACCOUNTS, at_work

pytestmark = pytest.mark.cluster

WRITE = (
    "if ( : > /workspace/group/new && : > /home/node/.claude/new ) 2>/dev/null; then output can; else output cannot; fi"
)


@pytest.fixture
async def backend(kube, cluster, cluster_namespace, script_agent_image, tmp_path):
    """A place for agents of `main`, with volumes made by hand."""
    folder = tmp_path / "volumes"
    names_of = [
        claim.name
        for claim in (*claims.installation_claims(Layout.PER_TYPE), *claims.group_claims(Layout.PER_TYPE, "main"))
    ]
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": names.AGENT_ACCOUNT}}
    await kube.create(ACCOUNTS, account, namespace=cluster_namespace)
    for name in names_of:
        place = folder / name
        place.mkdir(parents=True, mode=0o755)
        await kube.create(VOLUMES, volume(cluster_namespace, name, place))
        await kube.create(CLAIMS, claim(cluster_namespace, name), namespace=cluster_namespace)
    (folder / names.ipc_claim("main") / "inputs" / "s1").mkdir(parents=True)
    async with at_work(kube, cluster_namespace) as running:
        yield running
    for name in names_of:
        await kube.delete(VOLUMES, f"{cluster_namespace}-{name}")


def volume(namespace, name, folder: Path):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": "1Mi"},
            "storageClassName": "by-hand",
            "claimRef": {"namespace": namespace, "name": name},
            "hostPath": {"path": str(folder), "type": "Directory"},
        },
    }


def claim(namespace, name):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "by-hand",
            "volumeName": f"{namespace}-{name}",
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }


async def said(backend: ClusterBackend, **settings) -> str | None:
    ((_, result),) = await results(await backend.start(spec("s1", WRITE, **settings)))
    return result


async def test_without_the_setting_the_agent_cannot_write_and_the_doctor_names_it(backend, kube, cluster_namespace):
    assert await said(backend) == "cannot"
    found = await kube.list(CLAIMS, namespace=cluster_namespace)
    volumes = doctor_volumes.bound(found, await kube.list(VOLUMES))
    (finding,) = doctor_volumes.owners(spec("s1").plan.config, volumes, [])
    assert finding.verdict is Verdict.DOUBTFUL
    assert "hostPath" in finding.evidence
    assert "runtime.fixPermissions: true" in finding.remedy


async def test_with_it_the_agent_can(backend):
    assert await said(backend, fix_permissions=True) == "can"
