"""The checkout's Pulumi program, on a cluster that has an API but no node.

No pod ever runs there, so the Deployment is not awaited; everything else is as a user gets it. A
test project's `__main__.py` is this file; it finds the checkout by `NANOCLAW_CHECKOUT`.
"""

import os
import runpy
import sys
from pathlib import Path

import pulumi

CHECKOUT = Path(os.environ["NANOCLAW_CHECKOUT"])


def unawaited(arguments: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
    if arguments.type_ not in {"kubernetes:apps/v1:Deployment", "kubernetes:apps/v1:DaemonSet"}:
        return None
    metadata = dict(arguments.props["metadata"])
    metadata["annotations"] = {"pulumi.com/skipAwait": "true"}
    return pulumi.ResourceTransformResult({**arguments.props, "metadata": metadata}, arguments.opts)


pulumi.runtime.register_resource_transform(unawaited)
sys.path.insert(0, str(CHECKOUT))
runpy.run_path(str(CHECKOUT / "__main__.py"))
