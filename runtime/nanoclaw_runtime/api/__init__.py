"""The controller over HTTP: thin handlers, an event stream, problem documents.

Decides nothing: what a request means is the controller's business (`controller.view`).
"""
