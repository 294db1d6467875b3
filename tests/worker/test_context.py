"""What a worker process has."""

from pathlib import Path

import pytest

from app.core.db import Database
from app.core.settings import Settings
from app.ledger.opening import WrongKeyError, open_log
from worker.context import Context


def test_a_worker_makes_no_second_key_for_a_log_that_has_one(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    first = open_log(database, Settings(data_dir=tmp_path / "first"))
    with pytest.raises(WrongKeyError, match=f"signed with the key {first.key_id}"):
        Context.from_settings(settings)
    assert not settings.signing_key.exists()


def test_a_worker_signs_with_the_key_of_the_log(database: Database, context: Context) -> None:
    assert context.signer.key_id == open_log(database, context.settings).key_id
