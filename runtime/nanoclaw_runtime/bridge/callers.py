"""Whose pod a connection comes from: the API server knows the token, our watch knows the pod.

A token counts when it was made for the bridge, by the kubelet, for a pod of the agents' account that is there at this
moment under this very uid. Session and group are what that pod's own labels say, which agents cannot change.
"""

from __future__ import annotations

from typing import Final

from nanoclaw_runtime.bridge.server import Caller, CallerRefused
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.kube.client import KubeClient
from nanoclaw_runtime.kube.deadline import Deadline
from nanoclaw_runtime.kube.errors import DeadlineExceeded, KubeError
from nanoclaw_runtime.kube.reflector import Reflector
from nanoclaw_runtime.kube.resources import Pod
from nanoclaw_runtime.kube.token_review import TokenOwner, review

SEEN_WITHIN: Final = 3.0
"""Seconds that our watch may be behind the API server."""


class PodCallers:
    """See `server.Identify`."""

    def __init__(self, client: KubeClient, namespace: str, pods: Reflector[Pod]) -> None:
        self._client, self._pods = client, pods
        self._account = f"system:serviceaccount:{namespace}:{names.AGENT_ACCOUNT}"

    async def __call__(self, token: str) -> Caller:
        """The pod that the token was made for. Raises CallerRefused."""
        owner = await self._owner(token)
        try:
            pod = await self._pods.until(
                owner.pod,
                lambda pod: pod is not None and pod.metadata.uid == owner.pod_uid,
                Deadline.after(SEEN_WITHIN),
            )
        except DeadlineExceeded:
            pod = None
        if pod is None or pod.finished:
            raise CallerRefused(f"there is no running agent's pod {owner.pod!r} with the uid {owner.pod_uid}")
        session = pod.metadata.label(labels.SESSION)
        folder = (pod.metadata.annotations or {}).get(labels.FOLDER, "")
        if not session or names.folder_problem(folder):
            raise CallerRefused(f"the pod {owner.pod!r} does not say whose session it is")
        return Caller(folder, session, owner.pod)

    async def _owner(self, token: str) -> TokenOwner:
        try:
            owner = await review(self._client, token, names.BRIDGE_AUDIENCE)
        except KubeError as error:
            raise CallerRefused(f"the token could not be reviewed: {error.message}") from error
        if owner is None:
            raise CallerRefused(f"the token is none for {names.BRIDGE_AUDIENCE!r}, or its pod is gone")
        if owner.username != self._account or not owner.pod or not owner.pod_uid:
            raise CallerRefused(f"the token is {owner.username!r}'s and of no agent's pod")
        return owner
