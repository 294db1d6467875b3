"""Errors about settings. Nothing is imported here, so that the command line can name them at once."""


class SettingsError(RuntimeError):
    """A setting, of the environment or of the command line, cannot be used; the text says which and why."""


class MissingSettingError(SettingsError):
    """A process cannot start because a setting that it needs is not there."""
