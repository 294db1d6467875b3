"""Errors of models, versions and their files."""

from app.core.errors import Conflict, Invalid, NotFound


class ModelNotFound(NotFound):
    """No model has this id."""

    slug, title = "model-not-found", "No such model"

    def __init__(self, model_id: str) -> None:
        super().__init__(f"There is no model {model_id}. GET /v1/models lists them.")


class VersionNotFound(NotFound):
    """The model has no version with this id."""

    slug, title = "version-not-found", "No such version"

    def __init__(self, version_id: str) -> None:
        super().__init__(
            f"There is no version {version_id}. GET /v1/models/<model_id>/versions lists a model's."
        )


class FileNotFound(NotFound):
    """The version has no file of this path."""

    slug, title = "file-not-found", "No such file"


class UnknownComponent(Invalid):
    """The catalogue has no such family, task or method, or they do not go together."""

    slug, title = "unknown-component", "The catalogue does not have this"


class ParametersInvalid(Invalid):
    """A configuration, recipe or parameter does not follow its JSON schema."""

    slug, title = "parameters-invalid", "The parameters do not follow their schema"


class VersionFixed(Conflict):
    """The version is ready; its files never change again."""

    slug, title = "version-fixed", "The version cannot change any more"


class VersionNotReady(Conflict):
    """The version waits for its files."""

    slug, title = "version-not-ready", "The version is not ready"


class VersionBusy(Conflict):
    """A job is running on the version."""

    slug, title = "version-in-use", "A job is running on the version"


class VersionRetired(Conflict):
    """The version was taken out of use for good."""

    slug, title = "version-retired", "The version is retired"


class FileRefused(Invalid):
    """The file's name is not allowed, or its content is not what the name says."""

    slug, title = "file-refused", "The file cannot be part of a checkpoint"


class CheckpointInvalid(Invalid):
    """The uploaded files do not make a checkpoint."""

    slug, title = "checkpoint-invalid", "The files do not make a checkpoint"


class NotEvaluable(Invalid):
    """An audit was asked for a version that names no dataset."""

    slug, title = "no-dataset", "An audit needs a dataset"


class TooFewTrainingPairs(Invalid):
    """The dataset has no training pairs, or too few."""

    slug, title = "too-few-training-pairs", "The dataset has too few training pairs"


class WrongModality(Invalid):
    """The dataset holds images and the family reads graphs, or the reverse."""

    slug, title = "wrong-modality", "The dataset does not fit the model"


class DatasetUnfit(Invalid):
    """The pairs of the dataset are not what the task needs, or a configuration denies what they are."""

    slug, title = "dataset-unfit", "The dataset does not fit the task or the configuration"
