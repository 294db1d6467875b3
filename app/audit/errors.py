"""Errors of audits, reports and certificates."""

from app.core.errors import Conflict, NotFound


class VersionUnknown(NotFound):
    """No version has this id."""

    slug, title = "version-not-found", "No such version"


class RequestUnknown(NotFound):
    """No deletion request has this id."""

    slug, title = "deletion-request-not-found", "No such deletion request"


class NoCertificate(Conflict):
    """The request is not completed, so there is no certificate of it (yet)."""

    slug, title = "no-certificate", "The request has no certificate"
