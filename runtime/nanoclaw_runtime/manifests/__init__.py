"""Kubernetes objects as plain dicts: one frozen plan in, one dict out; no client, no clock."""
