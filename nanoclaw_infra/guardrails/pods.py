"""What a pod of an agent has to be when it is made: whose, made by whom, of which containers, with which volumes."""

from __future__ import annotations

from nanoclaw_infra.guardrails.admission import CONTAINERS, OBJECT, SPEC, Admission, Rule, owners
from nanoclaw_infra.guardrails.containers import isolation, what_runs
from nanoclaw_infra.guardrails.expressions import FOLDER, GROUP, entry, listed, marked, runs_as_agent, text
from nanoclaw_infra.guardrails.volumes import variables, volumes
from nanoclaw_runtime.contract import labels, names
from nanoclaw_runtime.contract.config import ControllerConfig

POD_MAKERS = (
    "system:serviceaccount:kube-system:job-controller",
    "system:serviceaccount:kube-system:statefulset-controller",
    "system:kube-controller-manager",  # all of them, where controllers have no accounts of their own
)
_VERSIONS = {"Job": "batch/v1", "StatefulSet": "apps/v1"}


def pods(config: ControllerConfig) -> Admission:
    """Everything that is asked of a pod, and only when it is made."""
    return Admission(
        "agent-pods",
        "Agents' pods come from those alone, have no rights and no Secrets, run the configured image, and mount what "
        "is their group's.",
        kinds=(("", "pods"),),
        operations=("CREATE",),
        applies=f"{marked(OBJECT)} || {runs_as_agent(SPEC)}",
        variables={
            **CONTAINERS,
            "group": entry(OBJECT, "labels", labels.GROUP),
            "folder": entry(OBJECT, "annotations", labels.FOLDER),
            **variables(config),
        },
        rules=(*_origin(config), *what_runs(config), *isolation(config), *volumes(config)),
    )


def _origin(config: ControllerConfig) -> tuple[Rule, ...]:
    """A pod of ours comes from a Job or a set of ours, and says whose it is."""
    makers = owners(config)
    kinds = " || ".join(f"owner.kind == {text(kind)} && owner.apiVersion == {text(_VERSIONS[kind])}" for kind in makers)
    own_name = f"^[a-z0-9]([a-z0-9-]{{0,{names.SLUG_LENGTH - 2}}}[a-z0-9])?$"
    hashed = "-[0-9a-f]{10}$"
    told, plural = " or ".join(makers), " or ".join(f"{kind}s" for kind in makers)
    return (
        Rule(
            f"request.userInfo.username in {listed(POD_MAKERS)}",
            f"pods with labels or the account of agents are made by {plural} of {names.CONTROLLER} "
            f"alone; send the group a message, or take {labels.PREFIX}* and {names.AGENT_ACCOUNT} out of your own pods",
            found="'made by ' + request.userInfo.username",
        ),
        Rule(
            f"{OBJECT}.?ownerReferences.orValue([]).exists(owner, ({kinds}) && owner.?controller.orValue(false))",
            f"an agent's pod belongs to a {told}; let the controller make it",
        ),
        Rule(
            f"{entry(OBJECT, 'labels', labels.COMPONENT)} == {text(labels.AGENT)} && "
            f"{FOLDER}.matches({text(names.FOLDER_PATTERN)}) && {GROUP} != '' && "
            f"({FOLDER}.matches({text(own_name)}) && !{FOLDER}.matches({text(hashed)}) "
            f"? {GROUP} == {FOLDER} : {GROUP}.matches({text(hashed)}))",
            f"an agent's pod says of which group it is, by the label {labels.GROUP} and the annotation "
            f"{labels.FOLDER}, and both say the same; let the controller make it",
            found=f"'group ' + {GROUP} + ', folder ' + {FOLDER}",
        ),
        Rule(
            runs_as_agent(SPEC),
            f"agents run as the account {names.AGENT_ACCOUNT}, which has no rights; let the controller make the pod",
            found=f"'account ' + {SPEC}.?serviceAccountName.orValue('')",
        ),
        Rule(
            f"!{SPEC}.?automountServiceAccountToken.orValue(true)",
            "agents get no token of the API server; set automountServiceAccountToken to false",
        ),
    )
