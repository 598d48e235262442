"""Carries files between the controller's tree and the pods of agents, where no volume is shared."""
