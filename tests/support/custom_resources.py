"""Operators' kinds on a test's API server: made, served, and gone again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import yaml

from kubernetes import client
from nanoclaw_dev import modules
from nanoclaw_infra.discovery import CustomKind
from tests.support.cluster import client_of, unavailable


def definition(kind: CustomKind, *versions: str) -> dict[str, Any]:
    """A CustomResourceDefinition of our own that takes anything, with the kind's name and group."""
    plural = f"{kind.kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "plural": plural,
                "singular": kind.kind.lower(),
                "listKind": f"{kind.kind}List",
            },
            "versions": [
                {"name": version, "served": True, "storage": not place, "schema": {"openAPIV3Schema": schema}}
                for place, version in enumerate(versions)
            ],
        },
    }


def published(kind: CustomKind) -> dict[str, Any]:
    """The operator's own CustomResourceDefinition."""
    if not modules.CUSTOM_RESOURCES.built():
        unavailable("the operators' definitions are not there: `make test` fetches them")
    file = modules.CUSTOM_RESOURCES.place() / f"{kind.group}_{kind.kind.lower()}s.yaml"
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


@contextlib.contextmanager
def served(kubeconfig: Any, *definitions: dict[str, Any]) -> Iterator[Any]:
    """The kinds are there inside, and were not before nor are they after; gives the API client."""
    with client_of(kubeconfig) as api:
        kinds = client.ApiextensionsV1Api(api)
        try:
            for each in definitions:
                kinds.create_custom_resource_definition(each)
            _await(lambda: all(_offered(api, each) for each in definitions))
            yield api
        finally:
            for each in definitions:
                kinds.delete_custom_resource_definition(each["metadata"]["name"])
            _await(lambda: not any(_offered(api, each) for each in definitions))


def serve(api: Any, kind: CustomKind, version: str, *, on: bool) -> None:
    """An operator of another version begins, or stops, to serve a version of its kind."""
    kinds, name = client.ApiextensionsV1Api(api), f"{kind.kind.lower()}s.{kind.group}"
    found = kinds.read_custom_resource_definition(name)
    for each in found.spec.versions:
        each.served = on if each.name == version else each.served
    kinds.replace_custom_resource_definition(name, found)
    _await(lambda: _serves(api, kind.group, version, kind.kind) is on)


def _offered(api: Any, each: dict[str, Any]) -> bool:
    spec = each["spec"]
    wanted = [version["name"] for version in spec["versions"] if version["served"]]
    return all(_serves(api, spec["group"], version, spec["names"]["kind"]) for version in wanted)


def _serves(api: Any, group: str, version: str, kind: str) -> bool:
    try:
        listed = client.CustomObjectsApi(api).get_api_resources(group, version)
    except client.ApiException as error:
        if error.status != 404:
            raise
        return False
    return any(resource.kind == kind for resource in listed.resources)


def _await(condition: Any) -> None:
    end = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < end, "the API server does not follow its definitions"
        time.sleep(0.05)
