"""Pods and claim of a measurement, as Kubernetes gets them: pure functions.

They pass Pod Security `restricted` and OpenShift's restricted-v2 as agents do, and have neither the agents' account nor
labels under our prefix, which guardrails keep for the controller's own. Making and removing them is `bench_run`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nanoclaw_runtime.contract import labels

Manifest = dict[str, Any]

BENCH: Final = "bench"
"""The component, and the container, of everything made for a measurement."""
INSTANCE: Final = "app.kubernetes.io/instance"
ROLE: Final = "role"

DEADLINE: Final = 3600
"""Seconds after which Kubernetes ends a pod whose command is gone."""
GRACE: Final = 20
# Seconds for the measuring pod to remove its folder.

_CLAIM, _PLAIN = "/claim", "/plain"
_USER: Final = 1000
# As the agents; OpenShift fills in one of its own.
_HOSTNAME: Final = "kubernetes.io/hostname"


@dataclass(frozen=True)
class Place:
    """What all pods of one measurement have alike."""

    run: str
    """Name of the run; part of all names, and of its folder on the claim."""
    claim: str
    image: str
    openshift: bool
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[Mapping[str, str], ...] = ()
    tolerations: tuple[Mapping[str, Any], ...] = ()
    rounds: int = 200
    seconds: float = 20.0

    @property
    def labels(self) -> dict[str, str]:
        return labels.component(BENCH) | {INSTANCE: self.run}


def claim(run: str, *, storage_class: str, mode: str, size: str) -> Manifest:
    """A claim that is made for the measurement and removed behind it."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": run, "labels": labels.component(BENCH) | {INSTANCE: run}},
        "spec": {
            "accessModes": [mode],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": size}},
        },
    }


def answering(place: Place, pair: str, *, node: str | None) -> Manifest:
    """The pod `near` the one that measures, or `far` from it: on any other node when `node` is None."""
    affinity = _on(node) if node else ({} if pair == "near" else _beside(place, apart=True))
    return _pod(place, pair, ["answer", "--pair", pair], affinity)


def measuring(place: Place, pairs: Sequence[str], *, node: str | None) -> Manifest:
    """The pod that measures: beside the one that answers nearby, where there is one."""
    asked = [word for pair in pairs for word in ("--pair", pair)]
    affinity = _on(node) if node else (_beside(place, apart=False) if "near" in pairs else {})
    return _pod(place, "measure", ["measure", "--plain", _PLAIN, *asked], affinity)


def _pod(place: Place, role: str, words: Sequence[str], affinity: Manifest) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{place.run}-{role}", "labels": place.labels | {ROLE: role}},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": DEADLINE,
            "terminationGracePeriodSeconds": GRACE,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _security(openshift=place.openshift),
            "imagePullSecrets": [dict(each) for each in place.pull_secrets],
            "tolerations": [dict(each) for each in place.tolerations],
            "affinity": affinity,
            "containers": [_container(place, words)],
            "volumes": [
                {"name": "claim", "persistentVolumeClaim": {"claimName": place.claim}},
                {"name": "plain", "emptyDir": {"sizeLimit": "1Gi"}},
            ],
        },
    }


def _container(place: Place, words: Sequence[str]) -> Manifest:
    return {
        "name": BENCH,
        "image": place.image,
        "imagePullPolicy": place.pull_policy,
        "command": [
            "python", "-m", "nanoclaw_runtime.storage_probe", *words, "--folder", f"{_CLAIM}/.{place.run}",
            "--rounds", str(place.rounds), "--seconds", str(place.seconds),
        ],
        "resources": {
            "requests": {"cpu": "100m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},  # what is written stays in its page cache until it is synced
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "claim", "mountPath": _CLAIM}, {"name": "plain", "mountPath": _PLAIN}],
    }  # fmt: skip


def _security(*, openshift: bool) -> Manifest:
    settings: Manifest = {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        "fsGroupChangePolicy": "OnRootMismatch",
    }
    return settings if openshift else settings | {"runAsUser": _USER, "runAsGroup": _USER, "fsGroup": _USER}


def _on(node: str) -> Manifest:
    """By affinity and not by `nodeName`, so that the scheduler has the claim bound there."""
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def _beside(place: Place, *, apart: bool) -> Manifest:
    term = {
        "labelSelector": {"matchLabels": {INSTANCE: place.run, ROLE: "near"}},
        "topologyKey": _HOSTNAME,
    }
    return {"podAntiAffinity" if apart else "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
