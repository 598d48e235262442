"""The Job of one session."""

from __future__ import annotations

from typing import Final

from nanoclaw_runtime.contract import names
from nanoclaw_runtime.domain.model import SessionPlan
from nanoclaw_runtime.domain.parking import LONGEST_WAIT
from nanoclaw_runtime.manifests.identity import holder_annotations
from nanoclaw_runtime.manifests.pod import Manifest, agent_pod, session_labels

PARKED: Final = 2 * LONGEST_WAIT
"""Seconds a parked agent has besides: its session is to have the whole deadline, even if a restart of the controller
made it wait longer than it should."""


def agent_job(plan: SessionPlan) -> Manifest:
    """One pod, once. Kubernetes deletes the Job `keep_finished` seconds after it ended."""
    ref, config = plan.ref, plan.config
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": names.job(ref.folder, ref.session),
            "labels": session_labels(plan),
            "annotations": holder_annotations(plan),
        },
        "spec": {
            "backoffLimit": 0,  # a retry is the queue's decision: only it still has the message
            "activeDeadlineSeconds": round(config.deadline + (PARKED if plan.parked else 0)),
            "ttlSecondsAfterFinished": round(config.keep_finished),
            "template": agent_pod(plan),
        },
    }
