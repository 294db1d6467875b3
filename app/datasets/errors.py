"""Errors of datasets and their manifests."""

from collections.abc import Mapping, Sequence

from app.core.errors import Conflict, Invalid, NotFound, Problem


class DatasetNotFound(NotFound):
    """No dataset has this id."""

    slug, title = "dataset-not-found", "No such dataset"

    def __init__(self, dataset_id: str) -> None:
        super().__init__(f"There is no dataset {dataset_id}. GET /v1/datasets lists them.")


class NameTaken(Conflict):
    """Another dataset or model has this name."""

    slug, title = "name-taken", "The name is taken"


class RootRefused(Invalid):
    """The dataset's root lies outside of the folders that the operator allowed."""

    slug, title = "root-refused", "The dataset's root is not allowed"


class RootMissing(Invalid):
    """There is neither a folder nor an archive at the dataset's root."""

    slug, title = "root-missing", "The dataset's root is not there"


class DatasetNotReady(Conflict):
    """The dataset has no manifest yet."""

    slug, title = "dataset-not-ready", "The dataset has no manifest"


class ManifestFixed(Conflict):
    """The dataset has a manifest, and this is another one."""

    slug, title = "manifest-fixed", "The dataset has another manifest already"


class ManifestBusy(Conflict):
    """Another manifest of the same dataset is being read, or a request about it accepted."""

    slug, title = "manifest-busy", "This dataset is being changed"


class UnknownManifestFormat(Problem):
    """The body's media type is none of those that a manifest can have."""

    status, slug, title = 415, "unknown-manifest-format", "The media type is not known here"


class ManifestInvalid(Invalid):
    """Rows of a manifest are broken; ``rows`` are the first 20, ``count`` is all of them."""

    slug, title = "manifest-invalid", "Rows of the manifest are broken"

    def __init__(self, rows: Sequence[Mapping[str, str | int]], count: int) -> None:
        first = rows[0]
        named = "it" if count == 1 else f"the first {len(rows)} of them"
        super().__init__(
            f"{count} row{'s' if count != 1 else ''} of the manifest cannot be used, the first one "
            f"on line {first['line']}: {first['detail']}. 'errors' names {named}. Nothing was "
            "registered; correct the manifest and send it again.",
            extra={"broken_rows": count},
        )
        self.rows = [dict(row) for row in rows]

    def body(self) -> dict[str, object]:
        """Return the problem object, with line numbers as numbers."""
        return {**super().body(), "errors": self.rows}
