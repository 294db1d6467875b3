"""What the catalogue says about unlearning methods, as the rules of deletion requests need it."""

from typing import Any, Literal, cast

from app.deletions.errors import MethodRefused
from app.registry.catalogue import catalogue

Guarantee = Literal["exact", "approximate"]


def check(name: str, params: dict[str, Any], scope: str, objective: str) -> None:
    """Make sure that a method exists, takes these parameters and meets scope and objective.

    Raises:
        UnknownComponent, ParametersInvalid, MethodRefused
    """
    known = catalogue()
    method = known.method(name)
    known.check_params(name, params)
    if scope not in method.scopes:
        able = [other for other, entry in known.methods.items() if scope in entry.scopes]
        raise MethodRefused(
            f"{name} cannot meet the scope {scope!r}: it meets {', '.join(method.scopes)}."
            f" Methods that can: {', '.join(able) or 'none'}.",
            pointers=[{"pointer": "#/scope", "detail": f"not met by {name}"}],
        )
    if objective not in method.objectives:
        able = [other for other, entry in known.methods.items() if objective in entry.objectives]
        raise MethodRefused(
            f"{name} cannot aim at {objective!r}: it can at {', '.join(method.objectives)}."
            f" Methods that can: {', '.join(able) or 'none'}.",
            pointers=[{"pointer": "#/objective", "detail": f"not an aim of {name}"}],
        )


def check_family(name: str, family: str, task: str, update: str) -> None:
    """Make sure that a method applies to a model.

    Raises:
        MethodRefused: with the catalogue's reason.
    """
    reason = catalogue().refusal(name, family, task, update)
    if reason is not None:
        raise MethodRefused(
            f"{name} (update: {update}) does not apply to {family} for {task}: {reason}",
            pointers=[{"pointer": "#/method", "detail": reason}],
        )


def meeting(scope: str) -> list[str]:
    """Return the methods that meet a scope."""
    return [name for name, method in catalogue().methods.items() if scope in method.scopes]


def by_scope() -> dict[str, list[str]]:
    """Return scope -> the methods that meet it."""
    return {scope: meeting(scope) for scope in ("association", "unimodal", "full")}


def promise(name: str) -> tuple[Guarantee, list[str]]:
    """Return the class of a method's guarantee and its limitations, for the certificate."""
    method = catalogue().method(name)
    return cast("Guarantee", method.guarantee), list(method.limitations)
