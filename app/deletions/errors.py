"""Errors about deletion requests that a caller sees."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.core.errors import Conflict, Invalid, NotFound


class RequestNotFound(NotFound):
    """No deletion request has this id."""

    slug = "deletion-request-not-found"


class RequestEnded(Conflict):
    """The request is completed, denied or cancelled."""

    slug = "deletion-request-ended"


class RequestOpen(Conflict):
    """The request has not ended, and what it needs until then cannot be deleted."""

    slug = "deletion-request-open"


class NothingToRetry(Conflict):
    """Only a request that needs attention can be tried again."""

    slug = "nothing-to-retry"


METHOD_GONE = (
    "Retry the request once the service has the method for this model again, or withdraw it and file"
    " one with another method."
)
"""What to do about an accepted request whose method cannot be used any more."""


class DatasetNotReady(Conflict):
    """The dataset has no pair manifest yet."""

    slug = "dataset-not-ready"


class UnknownTargets(Invalid):
    """Targets that the dataset does not have.

    Args:
        unknown: kind of target (``pair_ids``, ``item_ids``, ``text_ids``) -> (first ones, count of
            all).
    """

    slug = "unknown-targets"

    def __init__(self, dataset_id: str, unknown: Mapping[str, tuple[Sequence[str], int]]) -> None:
        total = sum(count for _, count in unknown.values())
        body: dict[str, Any] = {
            kind: {"count": count, "first": list(first)} for kind, (first, count) in unknown.items()
        }
        super().__init__(
            f"{total} of the targets are not in dataset {dataset_id}; nothing was recorded. Remove or correct"
            " them; `unknown` names the first 20 of each kind.",
            pointers=[
                {"pointer": f"#/targets/{kind}", "detail": f"{count} unknown"}
                for kind, (_, count) in unknown.items()
            ],
            extra={"unknown": body},
        )


class NothingLeft(Invalid):
    """The request would leave too few training pairs to retain, or none."""

    slug = "whole-training-set"


class NotLearned(Invalid):
    """A listed version did not learn from the dataset."""

    slug = "version-did-not-learn"


class MethodGone(Conflict):
    """The method of an accepted request cannot be used any more."""

    slug = "method-gone"


class MethodRefused(Invalid):
    """The method cannot be used here, or cannot meet the scope."""

    slug = "method-not-applicable"
