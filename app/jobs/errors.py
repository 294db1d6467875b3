"""Errors about jobs that a caller sees, and those that only a worker meets."""

from app.core.errors import Conflict, NotFound


class JobNotFound(NotFound):
    """No job has this id."""

    slug = "job-not-found"


class JobEnded(Conflict):
    """The job has ended already and cannot be cancelled."""

    slug = "job-ended"


class LeaseLost(Exception):
    """The job belongs to another worker by now, or has ended: this one must stop and write nothing."""


class CancelRequested(Exception):
    """Somebody asked for this job to be cancelled."""
