"""`nanoclaw-preview`: what `pulumi preview --json` says, as a comment a reviewer can judge.

Data that could be lost comes first and needs a permission written in the stack; secrets come nowhere.
A filter: it runs no engine, reads no cluster and posts nothing.
"""

from nanoclaw_infra.preview.command import main

__all__ = ["main"]
