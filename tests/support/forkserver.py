"""The one process that others are forked of: there is one for all tests, so it has read what any of them needs.

What is forked is `forked` (commands and hosts) and `tests.infra.recording` (the Pulumi program).
"""

from __future__ import annotations

import multiprocessing

from nanoclaw_runtime.cli.commands import COMMANDS

OURS = (
    "nanoclaw_infra.installation",
    "nanoclaw_runtime.cli",
    *(f"nanoclaw_runtime.cli.{command.module}" for command in COMMANDS.values()),
    "nanoclaw_runtime.cli.direct",
    "nanoclaw_runtime.cli.service_proxy",
    "tests.support.crash_points",
)
LATE = (
    "kubernetes.dynamic",
    "pulumi.runtime.mocks",
    "pulumi_kubernetes.admissionregistration.v1",
    "pulumi_kubernetes.apps.v1",
    "pulumi_kubernetes.core.v1",
    "pulumi_kubernetes.meta.v1",
    "pulumi_kubernetes.networking.v1",
    "pulumi_kubernetes.policy.v1",
    "pulumi_kubernetes.rbac.v1",
)
"""What these import only when they use it; it is two thirds of what a recording would take."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([*OURS, *LATE])
