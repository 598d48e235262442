"""What the objects of a session say about themselves, and by what a parked one is known to be stale."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from nanoclaw_runtime.contract import labels
from nanoclaw_runtime.contract.config import Transport
from nanoclaw_runtime.domain.model import SessionPlan, SessionRef
from nanoclaw_runtime.manifests.pod import agent_pod

FINGERPRINT_LENGTH = 16


def holder_annotations(plan: SessionPlan) -> dict[str, str]:
    """Of the Job or StatefulSet that holds the session's pod: what a later process has to know of it."""
    found = {labels.FOLDER: plan.ref.folder}
    if plan.config.transport is not Transport.VOLUME:
        found[labels.TRANSPORT] = plan.config.transport.value
    if plan.node is not None:
        found[labels.NODE] = plan.node
    if plan.parked:
        found[labels.FINGERPRINT] = fingerprint(plan)
    return found


def fingerprint(plan: SessionPlan) -> str:
    """A hash of everything a pod of this plan is made of, except which session it is and where it would like to run."""
    same = replace(plan, ref=SessionRef(plan.ref.folder, ""), parked=True, near=None)
    content = json.dumps([plan.config.pattern, agent_pod(same)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:FINGERPRINT_LENGTH]
