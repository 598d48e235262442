"""The only client of the Kubernetes API; nothing outside this package imports `kubernetes` or `aiohttp`.

The official package brings configuration, authentication, TLS and token rotation. Bodies go out
as plain dicts, answers are decoded with msgspec, watch and attach are our own.
"""
