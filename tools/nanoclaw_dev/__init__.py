"""Everything a checkout needs around the product: engine, cluster, images, `up` and `down`.

Nothing in here is shipped to a user's cluster. The product is `nanoclaw_infra` and `runtime`.
"""
