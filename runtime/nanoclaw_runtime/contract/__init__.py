"""What the Pulumi program makes and the runtime looks for, as data.

Names, labels, volume layout, wire format, permissions and settings. Standard library and
pydantic only: `nanoclaw_infra` renders it with typed Pulumi arguments, `manifests` with plain
dicts, and the agreement tests prove that both mean the same.
"""
