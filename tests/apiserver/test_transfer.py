"""Files through the API server's service proxy, to a real controller: longer than one request may be, both ways."""

import asyncio
import contextlib
import os
import socket

import pytest

from nanoclaw_runtime.api.guard import BODY_LIMIT
from nanoclaw_runtime.api.server import listen, serve_on
from nanoclaw_runtime.cli import carrying
from nanoclaw_runtime.cli.errors import NotReachable, Refused
from nanoclaw_runtime.cli.remote import Remote
from nanoclaw_runtime.cli.service_proxy import ServiceProxy
from nanoclaw_runtime.contract import names
from nanoclaw_runtime.domain.transfer import Area
from nanoclaw_runtime.ipc import archive
from nanoclaw_runtime.kube.errors import Target
from nanoclaw_runtime.kube.resources import PODS, Resource
from tests.support.house import House
from tests.support.objects import plain_pod
from tests.support.served import TOKEN, whole_api

pytestmark = pytest.mark.apiserver

SERVICES = Resource("Service", "services")
ENDPOINTS = Resource("Endpoints", "endpoints")
MERGE = {"Content-Type": "application/merge-patch+json"}


def own_address():
    """Of this machine, and not the loopback's: the API server proxies to no such address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("198.51.100.1", 9))  # sends nothing
        return probe.getsockname()[0]
    pytest.skip("this machine has no address but the loopback's")


@pytest.fixture
async def remote(admin, namespace, tmp_path):
    address = own_address()
    async with House(tmp_path) as house:
        listener = listen(address, 0)
        serving = asyncio.create_task(serve_on(whole_api(house.host), listener))
        port = {"name": names.API_PORT_NAME, "port": listener.getsockname()[1], "protocol": "TCP"}
        metadata = {"name": names.CONTROLLER}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [port]}}
        await admin.create(SERVICES, service, namespace=namespace)
        pod = await admin.create(PODS, plain_pod("controller"), namespace=namespace)
        status = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
        path = PODS.path(namespace, "controller", "status")
        await admin.fetch("PATCH", path, Target("patch", "pods/status"), body=status, headers=MERGE)
        # The API server sends nobody to an address that is not of a pod.
        target = {"kind": "Pod", "namespace": namespace, "name": "controller", "uid": pod["metadata"]["uid"]}
        subsets = [{"addresses": [{"ip": address, "targetRef": target}], "ports": [port]}]
        endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}
        await admin.create(ENDPOINTS, endpoints, namespace=namespace)
        remote = Remote(ServiceProxy(admin, namespace), TOKEN)
        try:
            while not await answers(remote):
                await asyncio.sleep(0.05)
            yield remote
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def answers(remote):
    with contextlib.suppress(NotReachable):
        return await remote.healthz()


async def test_files_go_through_the_service_proxy_and_come_back(remote, tmp_path):
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    (there / "large").write_bytes(os.urandom(5 * BODY_LIMIT))
    (there / "small").write_bytes(b"s")
    found = archive.listing(there)
    taken = await carrying.send_files(remote, there, found.files, Area.GROUP, "a")
    assert (taken.files, await carrying.files(remote, Area.GROUP, "a")) == (2, found)
    await carrying.fetch_files(remote, back, Area.GROUP, "a")
    assert (back / "large").read_bytes() == (there / "large").read_bytes()


async def test_the_controllers_refusal_arrives_in_its_words(remote, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/x").write_bytes(b"x")
    found = archive.listing(tmp_path / "there")
    with pytest.raises(Refused, match="there is no group 'nobody'"):
        await carrying.send_files(remote, tmp_path / "there", found.files, Area.GROUP, "nobody")


async def test_without_a_controller_the_way_is_said_to_be_closed(admin, namespace):
    async def nothing():
        yield b""

    with pytest.raises(NotReachable):
        await Remote(ServiceProxy(admin, namespace), TOKEN).upload("/v1/transfer/global/files", nothing())
