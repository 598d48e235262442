"""Accepted messages and what became of them.

The store is the controller's only durable state. A message is committed before it is
acknowledged; an output is committed before it is published, once per (session, ordinal).
One process writes here. Files on group volumes are `ipc`, not this.
"""
