"""Why a pod that was asked for is not ready, for who waits for it and did not start a session in it.

Not here: what a session that starts makes of the same (`awaited_pods`).
"""

from __future__ import annotations

from nanoclaw_runtime.backends.awaited_pods import claims_named
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.claims import Layout, group_claims
from nanoclaw_runtime.domain.errors import Diagnosis, FailureKind
from nanoclaw_runtime.kube import diagnose
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.errors import KubeError, NotFound
from nanoclaw_runtime.kube.reflector import Reflector
from nanoclaw_runtime.kube.resources import JOBS, STATEFUL_SETS, Job, Pod, StatefulSet, slim
from nanoclaw_runtime.manifests.pod import CONTAINER


class PodTrouble:
    """See `controller.pod_files.Why`."""

    def __init__(self, client: KubeClient, namespace: str, pods: Reflector[Pod], layout: Layout) -> None:
        self._client, self._namespace, self._pods, self._layout = client, namespace, pods, layout

    async def __call__(self, folder: str, session: str) -> Diagnosis | None:
        """As far as the cluster tells; None when it does not."""
        try:
            pod = next((pod for pod in self._pods.objects.values() if _session(pod) == session), None)
            if pod is None:
                return await self._without_pod(folder, session)
            events = await self._client.events(pod.metadata.uid, namespace=self._namespace)
            wanted = [claim.name for claim in group_claims(self._layout, folder)]
            claims = await claims_named(self._client, self._namespace, wanted)
        except KubeError as error:
            return diagnose.api_failure(error)
        found = diagnose.late_start(pod.metadata.name, pod, CONTAINER, events, claims)
        return None if found.kind is FailureKind.START_TIMEOUT else found  # it takes its time, and nothing is wrong

    async def _without_pod(self, folder: str, session: str) -> Diagnosis | None:
        """Of what was to make it: the session's Job, or the group's set."""
        name = names.job(folder, session)
        try:
            uid = slim(await self._client.get(JOBS, name, namespace=self._namespace), Job).metadata.uid
        except NotFound:
            name = names.stateful_set(folder)
            try:
                found = await self._client.get(STATEFUL_SETS, name, namespace=self._namespace)
            except NotFound:
                return None
            uid = slim(found, StatefulSet).metadata.uid
        return diagnose.no_pod(name, await self._client.events(uid, namespace=self._namespace))


def _session(pod: Pod) -> str | None:
    return pod.metadata.label(labels.SESSION)
