"""The command line, for people outside the cluster with nothing but a kubeconfig.

Everything goes through the API server: its service proxy to the controller's API, pod logs, and
for `doctor` the objects themselves. Nothing here knows how messages are delivered.
"""

from nanoclaw_runtime.cli.commands import main

__all__ = ["main"]
