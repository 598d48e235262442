"""The model gateway: a process of its own that alone holds the model's key, and the only thing agents may reach.

It passes the few calls agents need on to the model's API, byte by byte, and counts what each group
uses. It knows nothing of the controller: both read the same contract.
"""
