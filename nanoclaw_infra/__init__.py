"""The Pulumi program: what a stack's settings become in a cluster.

Flat on purpose: one component a file, wired together by `installation`. It shares
`nanoclaw_runtime.contract` with the controller and imports nothing else of it.
"""
