"""Measures a folder as agents and the controller use it. Runs in pods that `nanoclaw bench storage` makes.

Nothing but the standard library and the words of its figures, so that it starts anywhere the controller's image does.
What the figures mean is `domain.storage_advice`; its pods and claims `cli.bench_run` makes and removes.
"""
