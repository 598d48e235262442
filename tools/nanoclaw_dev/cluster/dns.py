"""The names of Services and pods, by CoreDNS as an ordinary pod.

Names of other worlds do not exist here and are told so at once: nothing is forwarded, and nobody
who asks from a closed network waits for a timeout. Nothing in here talks to the cluster.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from nanoclaw_dev import modules
from nanoclaw_dev.cluster import archive
from nanoclaw_dev.cluster.instance import Instance
from nanoclaw_dev.cluster.render import CLUSTER_DOMAIN

NAMESPACE = "kube-system"
ACCOUNT = "coredns"
SERVICE = "kube-dns"
LABELS = {"k8s-app": SERVICE}
# What every cluster calls it, and what policies that allow DNS select.
PORT = 5353
# Above those that only root may listen on.
READY_PORT = 8181
READY_PERIOD = 2
# Seconds. A kubelet that was just started waits up to one period before it asks for the first time.
TTL = 5
# Seconds an answer may be remembered, so that a Service made anew is found.

CORE, APPS, RBAC = "/api/v1", "/apis/apps/v1", "/apis/rbac.authorization.k8s.io/v1"
DEPLOYMENT = f"{APPS}/namespaces/{NAMESPACE}/deployments/{ACCOUNT}"
DIGEST = "nanoclaw.dev/digest"


def image() -> str:
    """Its name changes with its content, so that a new one is rolled out."""
    return f"localhost/nanoclaw/coredns:{modules.COREDNS.key()}"


def image_archive() -> Path:
    """The built program as an image, beside the program; made when first asked for."""
    place = modules.COREDNS.place()
    file = place / "image.tar"
    if not file.exists():
        program = (place / "coredns").read_bytes()
        handle, partial = tempfile.mkstemp(prefix=".image-", dir=place)
        os.close(handle)
        archive.write_image(Path(partial), image(), files={"/coredns": program}, entrypoint=("/coredns",))
        Path(partial).replace(file)
    return file


def configuration() -> str:
    """The Corefile. Outside names get NXDOMAIN: some resolvers wait for a better answer to anything else."""
    zones = f"{CLUSTER_DOMAIN} in-addr.arpa ip6.arpa"
    served = " ".join(f"{zone}:{PORT}" for zone in zones.split())
    return f"""\
{served} {{
    errors
    ready :{READY_PORT}
    kubernetes {zones} {{
        pods insecure
        ttl {TTL}
    }}
    cache {TTL}
}}
.:{PORT} {{
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def objects(instance: Instance) -> list[tuple[str, dict[str, Any]]]:
    """Path → object for everything that makes the cluster's DNS, in the order to apply them in.

    The Deployment comes last and tells what all of them were.
    """
    there = f"namespaces/{NAMESPACE}"
    before = [
        (f"{CORE}/{there}/serviceaccounts/{ACCOUNT}", _object("v1", "ServiceAccount", ACCOUNT)),
        (f"{RBAC}/clusterroles/system:{ACCOUNT}", _role()),
        (f"{RBAC}/clusterrolebindings/system:{ACCOUNT}", _binding()),
        (
            f"{CORE}/{there}/configmaps/{ACCOUNT}",
            _object("v1", "ConfigMap", ACCOUNT, data={"Corefile": configuration()}),
        ),
        (f"{CORE}/{there}/services/{SERVICE}", _service(instance)),
    ]
    deployment = _deployment()
    digest = hashlib.sha256(json.dumps([before, deployment]).encode()).hexdigest()
    about = deployment["metadata"] | {"annotations": {DIGEST: digest}}
    return [*before, (DEPLOYMENT, deployment | {"metadata": about})]


def as_wanted(instance: Instance, deployment: dict[str, Any] | None) -> bool:
    """Whether the Deployment that is there, if any, was applied after all other objects as they should be."""
    wanted = objects(instance)[-1][1]["metadata"]["annotations"][DIGEST]
    return deployment is not None and deployment["metadata"].get("annotations", {}).get(DIGEST) == wanted


def _object(version: str, kind: str, name: str, *, namespace: str | None = NAMESPACE, **more: Any) -> dict[str, Any]:
    about = {"name": name, "labels": LABELS} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": version, "kind": kind, "metadata": about, **more}


def _role() -> dict[str, Any]:
    verbs = ["list", "watch"]
    return _object(
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        f"system:{ACCOUNT}",
        namespace=None,
        rules=[
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": verbs},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs},
        ],
    )


def _binding() -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return _object(
        f"{group}/v1",
        "ClusterRoleBinding",
        f"system:{ACCOUNT}",
        namespace=None,
        roleRef={"apiGroup": group, "kind": "ClusterRole", "name": f"system:{ACCOUNT}"},
        subjects=[{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
    )


def _service(instance: Instance) -> dict[str, Any]:
    ports = [
        {"name": f"dns-{protocol.lower()}", "protocol": protocol, "port": 53, "targetPort": PORT}
        for protocol in ("UDP", "TCP")
    ]
    return _object(
        "v1", "Service", SERVICE, spec={"clusterIP": instance.dns_service, "selector": LABELS, "ports": ports}
    )


def _deployment() -> dict[str, Any]:
    pod = {
        "serviceAccountName": ACCOUNT,
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",  # it is the one the others ask
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": ACCOUNT,
                "image": image(),
                "imagePullPolicy": "Never",
                "args": ["-conf", "/etc/coredns/Corefile"],
                "ports": [
                    {"name": f"dns-{protocol.lower()}", "protocol": protocol, "containerPort": PORT}
                    for protocol in ("UDP", "TCP")
                ],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": READY_PORT}, "periodSeconds": READY_PERIOD},
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "170Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "configuration", "mountPath": "/etc/coredns", "readOnly": True}],
            }
        ],
        "volumes": [{"name": "configuration", "configMap": {"name": ACCOUNT}}],
    }
    # The settings are read at the start: others make another pod.
    about = {"labels": LABELS, "annotations": {"nanoclaw.dev/configuration": json.dumps(configuration())}}
    return _object(
        "apps/v1",
        "Deployment",
        ACCOUNT,
        spec={"replicas": 1, "selector": {"matchLabels": LABELS}, "template": {"metadata": about, "spec": pod}},
    )
