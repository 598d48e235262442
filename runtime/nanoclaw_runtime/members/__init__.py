"""The controllers of the pattern `nodelocal`, one a node: who has which group, and how they work as one.

Each member is an ordinary host (`controller.host`) for the groups of its node. What is here makes a
request, a chat's text or a message that is with the wrong member reach the right one.
"""
