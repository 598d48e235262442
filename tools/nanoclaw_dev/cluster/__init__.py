"""A real Kubernetes on this machine, for `make up` and the tests.

The control plane runs in the host's namespaces and listens on loopback and one bridge of its own;
every node is a set of namespaces with its own PID 1, so power-off and clean-up are one kill.
Names, ports, addresses and folders follow from one instance name (`instance`); what is written
for the components is rendered by pure functions (`render`). Storage (`provisioner`), network
policies (`enforcer`) and names (`dns`) are our own; pods reach nothing beyond this machine.
"""
