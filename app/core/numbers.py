"""Whole numbers in paths and queries: every one has bounds, and one that is refused is said in words."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

LARGEST = 2**63 - 1
"""The largest number that a column of the database holds (bigint)."""
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_MOST_SHOWN = 40  # characters


@dataclass(frozen=True)
class Within:
    """Bounds of a whole number, as in ``Annotated[int, Within(1, 200), Query()]``.

    Attributes:
        lowest: the smallest number that is taken.
        highest: the largest one; no larger than `LARGEST` where it comes to the database.
    """

    lowest: int
    highest: int

    def __get_pydantic_core_schema__(
        self, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Return the schema of the number; its bounds stand in the OpenAPI document."""
        number = core_schema.int_schema(ge=self.lowest, le=self.highest)
        return core_schema.no_info_wrap_validator_function(self._in_words, number)

    def _in_words(self, value: Any, check: core_schema.ValidatorFunctionWrapHandler) -> int:
        try:
            number: int = check(value)
        except ValidationError as error:
            raise PydanticCustomError(
                "whole_number",
                "expected a whole number from {lowest} to {highest}; {came} came",
                {"lowest": self.lowest, "highest": self.highest, "came": _came(value)},
            ) from error
        return number


def _came(value: Any) -> str:
    """Return what came, if it is a number; what else came is not repeated."""
    text = str(value)
    if not _NUMBER.fullmatch(text):
        return "text" if text else "nothing"
    return text if len(text) <= _MOST_SHOWN else f"a number of {len(text)} characters"
