"""The NanoClaw controller: starts, feeds, watches and cleans up agent sessions.

`contract` is shared with the Pulumi program; everything else is the controller's own.
"""
