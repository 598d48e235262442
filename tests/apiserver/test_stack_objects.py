"""A real API server takes every object of every committed stack, by its own schema and to the letter.

Nothing is created: each object is sent with `dryRun=All` and `fieldValidation=Strict`, in a namespace that is
there. Custom resources are kinds of operators that are not installed here; which they are is told below.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import Invalid, Target
from tests.infra.recording import STACKS, configuration, manifests, record

pytestmark = pytest.mark.apiserver

STRICT = [("dryRun", "All"), ("fieldValidation", "Strict")]

CUSTOM = {"external-secrets.io", "monitoring.coreos.com"}
"""API groups of operators; whether their objects are right is tested where their definitions are."""

Manifest = dict[str, Any]


def objects(stack: str, namespace: str) -> Iterator[Manifest]:
    """Every object of a stack in the test's namespace, with names and values where the recording has none."""
    for each in record(stack, configuration(stack)):
        for manifest in manifests([each]):
            manifest["metadata"].setdefault("name", f"{each.name}-0a1b2c3d")
            if "namespace" in manifest["metadata"]:
                manifest["metadata"]["namespace"] = namespace
            if manifest["kind"] == "Secret":
                manifest["stringData"] = {"key": "value"}
            if manifest["kind"] == "Namespace":
                manifest["metadata"]["name"] = f"{namespace}-{stack}"
            yield manifest


def is_custom(manifest: Manifest) -> bool:
    return manifest["apiVersion"].partition("/")[0] in CUSTOM


async def plurals(admin: KubeClient, api_version: str) -> dict[str, tuple[str, bool]]:
    """Kind → its name in addresses, and whether it lives in a namespace; as the server itself tells."""
    found = await admin.request("GET", base(api_version), Target("get", api_version))
    return {each["kind"]: (each["name"], each["namespaced"]) for each in found["resources"] if "/" not in each["name"]}


def base(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


async def send(admin: KubeClient, manifest: Manifest) -> Manifest:
    plural, namespaced = (await plurals(admin, manifest["apiVersion"]))[manifest["kind"]]
    where = f"namespaces/{manifest['metadata']['namespace']}/" if namespaced else ""
    path = f"{base(manifest['apiVersion'])}/{where}{plural}"
    return await admin.request("POST", path, Target("create", plural), query=STRICT, body=manifest)


@pytest.mark.parametrize("stack", STACKS)
async def test_the_server_takes_every_object(admin: KubeClient, namespace: str, stack: str) -> None:
    declared = list(objects(stack, namespace))
    sent = [manifest for manifest in declared if not is_custom(manifest)]

    for manifest in sent:
        made = await send(admin, manifest)
        assert made["metadata"]["name"] == manifest["metadata"]["name"]
        assert same(manifest.get("spec", {}), made.get("spec", {})), "nothing of it is dropped"
    assert {"Deployment", "Role"} & {manifest["kind"] for manifest in sent}


def same(wanted: Any, made: Any) -> bool:
    """Whether everything that was sent came back; the server adds its defaults, and writes quantities its own way."""
    if isinstance(wanted, dict):
        return all(same(value, made.get(key)) for key, value in wanted.items() if key not in QUANTITIES)
    if isinstance(wanted, list):
        return len(wanted) == len(made) and all(map(same, wanted, made))
    return wanted == made


QUANTITIES = {"requests", "limits", "hard", "default", "defaultRequest", "max", "sizeLimit"}


def test_only_kinds_of_operators_are_left_out() -> None:
    left_out = {each["kind"] for stack in STACKS for each in objects(stack, "x") if is_custom(each)}

    assert left_out <= {"ExternalSecret", "ServiceMonitor", "PodMonitor", "PrometheusRule"}


async def test_the_check_is_a_check(admin: KubeClient, namespace: str) -> None:
    deployment = next(each for each in objects("dev", namespace) if each["kind"] == "Deployment")
    misspelt = copy.deepcopy(deployment)
    misspelt["spec"]["template"]["spec"]["restartPolice"] = "Always"

    with pytest.raises(Invalid, match="restartPolice"):
        await send(admin, misspelt)
    await send(admin, deployment)
