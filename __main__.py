"""The Pulumi program: read the stack, declare the installation, export how to reach it."""

import os

import pulumi

from nanoclaw_infra.installation import Installation
from nanoclaw_infra.settings import load_stack

installation = Installation("nanoclaw", load_stack(os.environ))
for name, value in installation.outputs.items():
    pulumi.export(name, value)
