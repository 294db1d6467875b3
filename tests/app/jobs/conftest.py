"""Jobs to claim, without any worker."""

import pytest
from fastapi import FastAPI

from app.core.db import Database
from tests.app.deletions.deletion_rows import Rows


@pytest.fixture
def rows(database: Database, app: FastAPI) -> Rows:
    """Give a dataset of 20 training pairs and a model without versions."""
    return Rows.make(database, app.state.signer, app.state.queue)
