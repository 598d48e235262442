"""The StatefulSet of one group, as it is for one session.

It never has more than one pod, and a pod never has more than one session: the template carries the session, and a new
one is applied only when no pod is left. Claims are the group's own, not templates of the set, so that they outlive it.
"""

from __future__ import annotations

from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.domain.model import SessionPlan
from nanoclaw_runtime.manifests.identity import holder_annotations
from nanoclaw_runtime.manifests.pod import Manifest, agent_pod, session_labels


def agent_set(plan: SessionPlan) -> Manifest:
    """One replica, to be applied on the server's side: an existing set of the group takes the session over."""
    folder = plan.ref.folder
    pod = agent_pod(plan)
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {
            "name": names.stateful_set(folder),
            "labels": session_labels(plan),
            "annotations": holder_annotations(plan),
        },
        "spec": {
            "replicas": 1,
            "serviceName": names.stateful_set(folder),  # required, and never resolved: nobody calls an agent
            "selector": {"matchLabels": labels.component(labels.AGENT) | labels.group(folder)},
            "updateStrategy": {"type": "OnDelete"},  # a pod that has its input is nobody's to replace
            "revisionHistoryLimit": 0,
            # The only policy a set may have. A container that starts again has no input, and its pod is taken away.
            "template": pod | {"spec": pod["spec"] | {"restartPolicy": "Always"}},
        },
    }
