"""NanoClaw on one Docker host: the controller of a cluster, from a stack file, a tree and an engine."""
