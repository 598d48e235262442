"""The eight wrapper modules, as data. Versions are pinned in their go.mod; here only what the
linker must be told, because a published module does not know its own version.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from nanoclaw_dev.gomodules import GoModule
from nanoclaw_dev.paths import TOOLS

ENGINE_VERSION = "3.259.0"
PROVIDER_VERSION = "4.25.0"
KUBERNETES_VERSION = "1.36.3"
PROMETHEUS_VERSION = "3.16.0"

_PROVIDER = "github.com/pulumi/pulumi-kubernetes/provider/v4"


def _generated_files(source: Path, source_of: Callable[[str], Path]) -> None:
    """The provider embeds its schema, with its version in it, and a mapping its zip names otherwise."""
    published = source_of(_PROVIDER) / "cmd" / "pulumi-resource-kubernetes"
    schema = json.loads((published / "schema.json").read_text())
    (source / "schema.json").write_text(json.dumps(schema | {"version": PROVIDER_VERSION}))
    shutil.copyfile(published / "terraform-mapping.json", source / "terraform-mapping.json")


def _exec_script(binaries: Path, source_of: Callable[[str], Path]) -> None:
    """The language host starts the program through a script it expects beside itself."""
    script = binaries / "pulumi-language-python-exec"
    shutil.copyfile(source_of("github.com/pulumi/pulumi/sdk/v3") / "python" / "cmd" / script.name, script)
    script.chmod(0o755)


def _definitions(place: Path, source_of: Callable[[str], Path]) -> None:
    """Operators publish them as YAML beside their sources."""
    prometheus = source_of("github.com/prometheus-operator/prometheus-operator") / "example/prometheus-operator-crd"
    external = source_of("github.com/external-secrets/external-secrets") / "config/crds/bases"
    for file in (
        prometheus / "monitoring.coreos.com_servicemonitors.yaml",
        prometheus / "monitoring.coreos.com_prometheusrules.yaml",
        external / "external-secrets.io_externalsecrets.yaml",
    ):
        shutil.copyfile(file, place / file.name)


ENGINE_CLI = GoModule(
    name="pulumi",
    title=f"the Pulumi engine {ENGINE_VERSION}",
    folder=TOOLS / "engine" / "cli",
    packages={"pulumi": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"},
    variables={"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": f"v{ENGINE_VERSION}"},
    tags="osusergo,grpcnotrace",
    finish=_exec_script,
    minutes=6,
)

ENGINE_LANGUAGE = GoModule(
    name="pulumi-language-python",
    title="the engine's Python language host",
    folder=TOOLS / "engine" / "language-python",
    packages={"pulumi-language-python": "github.com/pulumi/pulumi/sdk/python/cmd/pulumi-language-python/v3"},
    variables={"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": f"v{ENGINE_VERSION}"},
    minutes=1,
)

ENGINE_PROVIDER = GoModule(
    name="pulumi-resource-kubernetes",
    title=f"the engine's Kubernetes provider {PROVIDER_VERSION}",
    folder=TOOLS / "engine" / "provider-kubernetes",
    packages={"pulumi-resource-kubernetes": "."},
    variables={f"{_PROVIDER}/pkg/version.Version": PROVIDER_VERSION},
    prepare=_generated_files,
    minutes=8,
)

KUBERNETES = GoModule(
    name="kubernetes",
    title=f"Kubernetes {KUBERNETES_VERSION}",
    folder=TOOLS / "kubernetes" / "components",
    packages={
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
    },
    variables={
        "k8s.io/component-base/version.gitVersion": f"v{KUBERNETES_VERSION}",
        "k8s.io/component-base/version.gitMajor": "1",
        "k8s.io/component-base/version.gitMinor": "36",
    },
    minutes=9,
)

ETCD = GoModule(
    name="etcd",
    title="etcd",
    folder=TOOLS / "kubernetes" / "etcd",
    packages={"etcd": "go.etcd.io/etcd/server/v3"},
    minutes=1,
)

COREDNS = GoModule(
    name="coredns",
    title="CoreDNS 1.15.0",
    folder=TOOLS / "kubernetes" / "coredns",
    packages={"coredns": "."},
    minutes=2,
)

PROMTOOL = GoModule(
    name="promtool",
    title=f"promtool {PROMETHEUS_VERSION}",
    folder=TOOLS / "kubernetes" / "promtool",
    packages={"promtool": "github.com/prometheus/prometheus/cmd/promtool"},
    variables={"github.com/prometheus/common/version.Version": PROMETHEUS_VERSION},
    tags="remove_all_sd",  # no service discovery: the SDKs of all clouds come with it
    minutes=3,
)
"""Checks and tries alert rules; part of no cluster."""

CUSTOM_RESOURCES = GoModule(
    name="custom-resources",
    title="the definitions of operators' kinds",
    folder=TOOLS / "kubernetes" / "custom-resources",
    packages={},
    finish=_definitions,
    minutes=1,
)
"""What the objects that a stack makes for operators are checked against."""

TESTING = [PROMTOOL, CUSTOM_RESOURCES]

ENGINE = [ENGINE_CLI, ENGINE_LANGUAGE, ENGINE_PROVIDER]
CLUSTER = [KUBERNETES, ETCD, COREDNS]
