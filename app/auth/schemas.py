"""The scopes that a token can have."""

from typing import Literal

Scope = Literal[
    "deletions:read",
    "deletions:write",
    "deletions:review",
    "models:read",
    "models:write",
    "checkpoints:download",
    "audit:read",
    "webhooks:write",
    "admin",
]
