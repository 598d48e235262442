"""The policy pack in the real engine: it lets our stacks pass, and a mandatory violation ends the preview."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
import yaml

from nanoclaw_dev.paths import CHECKOUT
from nanoclaw_runtime.contract import names

pytestmark = pytest.mark.engine

BROKEN = """
import pulumi_kubernetes as kubernetes
kubernetes.core.v1.Service(
    "door",
    metadata={{"name": "door", "namespace": {namespace!r}}},
    spec={{"type": "NodePort", "ports": [{{"port": 80}}]}},
    opts=pulumi.ResourceOptions(provider=kubernetes.Provider("other", kubeconfig=os.environ["NANOCLAW_KUBECONFIG"])),
)
"""


@pytest.fixture
def pack(tmp_path):
    """The committed pack, run by this interpreter."""
    folder = tmp_path / "policies"
    shutil.copytree(CHECKOUT / "policies", folder, ignore=shutil.ignore_patterns("__pycache__"))
    definition = yaml.safe_load((folder / "PulumiPolicy.yaml").read_text())
    definition["runtime"]["options"]["virtualenv"] = sys.prefix
    (folder / "PulumiPolicy.yaml").write_text(yaml.safe_dump(definition))
    return folder


def preview(project, pack):
    """Exit code and everything the engine says."""
    command = ["preview", "--stack", project.stack, "--non-interactive", "--policy-pack", pack]
    result = subprocess.run(
        [project.engine.binaries.cli, *command],
        cwd=project.folder,
        env=project.engine.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return result.returncode, result.stdout


def test_a_stack_of_ours_passes_and_advice_does_not_change_that(project, pack):
    project.write(
        protect=True, groups=("main", "family"), allowDataLoss=[f"PersistentVolumeClaim/{names.GLOBAL_CLAIM}"]
    )

    code, told = preview(project, pack)

    assert code == 0, told
    assert "nanoclaw@v0.1.0" in told, "the pack was asked"
    assert "[mandatory]" not in told
    assert "can't run policy" not in told, "what is not known before an update keeps no policy from its work"
    assert f"PersistentVolumeClaim {names.GLOBAL_CLAIM}: protect is not set" in told
    assert "in production write its digest" in told


def test_an_object_and_a_stack_as_a_whole_that_break_policies_fail_the_preview_with_our_sentences(project, pack):
    project.write(protect=True, runtime={"agent": {"image": "localhost/agent:latest"}})
    program = project.folder / "__main__.py"
    program.write_text(program.read_text() + BROKEN.format(namespace=project.namespace))

    code, told = preview(project, pack)

    assert code != 0
    assert "Service door: spec.type is NodePort; write ClusterIP, and reach it with `nanoclaw` or `kubectl`" in told
    assert "agent.image is 'localhost/agent:latest', whatever that is today; write a version or a digest" in told
    mandatory = {line.split()[2] for line in told.splitlines() if "[mandatory]" in line}
    assert mandatory == {"images-have-a-version", "no-door-to-the-outside"}
