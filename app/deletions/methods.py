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


def check_unwatched(name: str, objective: str) -> None:
    """Make sure that a method can reach an objective on a dataset without validation pairs.

    These are what deleted pairs are to look like under ``calibrated``, unless the model is made anew.

    Raises:
        MethodRefused: it cannot.
    """
    if objective == "calibrated" and catalogue().method(name).guarantee != "exact":
        raise MethodRefused(
            f"{name} moves deleted pairs to where validation pairs are under the objective 'calibrated',"
            " and the dataset has no validation pairs. Choose the objective 'decouple', or an exact"
            " method.",
            pointers=[{"pointer": "#/objective", "detail": "the dataset has no validation pairs"}],
        )


def check_family(name: str, family: str, task: str, update: str) -> None:
    """Make sure that a method applies to a model.

    Raises:
        MethodRefused: with the catalogue's reason.
    """
    reason = refusal(name, family, task, update)
    if reason is not None:
        raise MethodRefused(reason, pointers=[{"pointer": "#/method", "detail": reason}])


def refusal(name: str, family: str, task: str, update: str) -> str | None:
    """Return why a method cannot unlearn on a model, or None where it can.

    The method may have been accepted by an earlier release, or have come with a plugin that is gone.
    """
    known = catalogue()
    if name not in known.methods:
        return f"{name} is no method of this service; known are {', '.join(sorted(known.methods))}"
    reason = known.refusal(name, family, task, update)
    if reason is None:
        return None
    return f"{name} (update: {update}) does not apply to {family} for {task}: {reason}"


def meeting(scope: str) -> list[str]:
    """Return the methods that meet a scope."""
    return [name for name, method in catalogue().methods.items() if scope in method.scopes]


def by_scope() -> dict[str, list[str]]:
    """Return scope -> the methods that meet it."""
    return {scope: meeting(scope) for scope in ("association", "unimodal", "full")}


def promise(name: str) -> tuple[Guarantee, list[str]]:
    """Return the class of a method's guarantee and its limitations, for the certificate.

    Of a method that this service does not know any more the weaker class is stated.
    """
    method = catalogue().methods.get(name)
    if method is None:
        unknown = (
            f"The method {name} is not known to this service any more: its guarantee is stated as"
            " approximate, whatever it was, and its limitations are not listed."
        )
        return "approximate", [unknown]
    return cast("Guarantee", method.guarantee), list(method.limitations)
