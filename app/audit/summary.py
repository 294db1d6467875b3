"""What a report says in short, in sentences for people who are no engineers."""

from collections.abc import Sequence
from datetime import UTC

from app.audit.findings import verdict
from app.audit.schemas import VersionReport
from app.datasets.tables import Dataset
from app.deletions.origins import Origin
from app.deletions.tables import DeletionRequest


def summary(
    request: DeletionRequest,
    dataset: Dataset,
    versions: Sequence[VersionReport],
    retired: Sequence[str],
) -> list[str]:
    """Return the sentences that stand first: what was asked, what came out, what is not known."""
    return [
        _asked(request),
        *_counted(request),
        *_attack(request, versions),
        _outcome(request, versions),
        *(_verdict(version) for version in versions),
        *_unmeasured(dataset, versions),
        *_left(retired),
        _on_time(request),
    ]


def _asked(request: DeletionRequest) -> str:
    what = {
        "association": "that the model forgets that image (or graph) and text of each pair belong"
        " together. What it knows of an image or a text on its own is kept",
        "unimodal": "that the model also forgets each image (or graph) and each text on its own",
        "full": "that the model becomes as if it had never seen the pairs",
    }
    return f"Asked was to delete {_pairs(request.pair_count)}. Scope: {what[request.scope]}."


def _counted(request: DeletionRequest) -> list[str]:
    found = []
    if request.already_forgotten_count:
        found.append(
            "Forgotten before, or asked for by an earlier request, when this one was accepted:"
            f" {_pairs(request.already_forgotten_count)}."
        )
    if request.not_trained_count:
        found.append(f"Never trained on (validation or test): {_pairs(request.not_trained_count)}.")
    return found


def _attack(request: DeletionRequest, versions: Sequence[VersionReport]) -> list[str]:
    """Say what was asked for and made of reference models; by a reader's words for them."""
    asked = request.reference_models
    made = sorted({version.reference_models for version in versions})
    if not asked and not any(made):
        return []
    said = [f"Asked for besides was an attack on each pair by {asked} comparison models."]
    if not asked:
        said = ["Another request asked for an attack on each pair by comparison models."]
    if made and request.status == "completed":
        numbers = " or ".join(str(number or "none") for number in made)
        said.append(f"For each version {numbers} were made.")
    elif request.status == "completed":
        said.append("As nothing had to be unlearned, none were made.")
    return [" ".join(said)]


def _left(retired: Sequence[str]) -> list[str]:
    if not retired:
        return []
    return [f"Retired, so out of use and left as they are: {', '.join(retired)}."]


def _outcome(request: DeletionRequest, versions: Sequence[VersionReport]) -> str:
    if request.status != "completed":
        reason = f" {request.status_reason}" if request.status_reason else ""
        return f"The request is {request.status.replace('_', ' ')}.{reason}"
    if request.met_by_request_id:
        return (
            "Every pair had been forgotten before, so nothing had to be done again: the certificate"
            f" of request {request.met_by_request_id} holds."
        )
    if not versions:
        return "No registered version in use had learned from the pairs, so none had to be changed."
    new = [version for version in versions if version.made_for_request]
    there = [version for version in versions if not version.made_for_request]
    return " ".join(filter(None, (_made(new), _already_there(there))))


def _made(versions: Sequence[VersionReport]) -> str:
    if not versions:
        return ""
    new = "A new version was" if len(versions) == 1 else f"{len(versions)} new versions were"
    said = f"{new} made with method {_methods(versions)}{_measured(versions)}, and recorded."
    if others := max(version.other_requests for version in versions):
        more = "another request" if others == 1 else f"{others} other requests"
        said += f" What was made forgot the pairs of {more} in the same step."
    return said


def _already_there(versions: Sequence[VersionReport]) -> str:
    if not versions:
        return ""
    stand = "1 version" if len(versions) == 1 else f"{len(versions)} versions"
    return (
        "Jobs of other requests had forgotten every pair already, so nothing was left to forget:"
        f" {stand} made with method {_methods(versions)}{_measured(versions)} before."
    )


def _verdict(version: VersionReport) -> str:
    said = (version.forgotten_sentence, verdict(version.findings))
    return f"{version.model_name}, version {version.number}. {' '.join(filter(None, said))}"


def _unmeasured(dataset: Dataset, versions: Sequence[VersionReport]) -> list[str]:
    """Say where nobody knows what forgetting has cost, and where no one could watch it."""
    versions = [version for version in versions if version.findings]
    said = []
    if without := [version for version in versions if not _has_utility(version)]:
        which = ", ".join(f"{one.model_name}, version {one.number}" for one in without)
        why = "" if dataset.split_counts.get("test") else ": the dataset has no test pairs"
        said.append(f"What forgetting has cost in quality was not measured ({which}){why}.")
    if versions and not dataset.split_counts.get("val"):
        said.append(
            "The dataset has no validation pairs, by which a method could have watched the quality"
            " while it forgot."
        )
    return said


def _has_utility(version: VersionReport) -> bool:
    found = [one.after for one in version.findings if (one.name, one.subset) == ("d_test", "test")]
    return any(figure is not None and figure.value is not None for figure in found)


def _methods(versions: Sequence[VersionReport]) -> str:
    return ", ".join(dict.fromkeys(version.method for version in versions))


def _measured(versions: Sequence[VersionReport]) -> str:
    return ", measured" if all(version.findings for version in versions) else ""


def _on_time(request: DeletionRequest) -> str:
    due = f"{request.deadline.astimezone(UTC):%d %B %Y, %H:%M} UTC"
    done = request.completed_time
    if done is None:
        return f"It is due by {due}."
    said = "in time" if done <= request.deadline else "too late"
    return f"It was completed {said}: on {done.astimezone(UTC):%d %B %Y, %H:%M} UTC, due by {due}."


def _pairs(count: int) -> str:
    return f"{count:,} pair" if count == 1 else f"{count:,} pairs"


def forgotten_sentence(version_id: str, gone: Sequence[Origin]) -> str:
    """Say which of a request's pairs which version is about; nothing where it is all in ``version_id``."""
    if [origin.version_id for origin in gone] in ([], [version_id]):
        return ""
    total = sum(origin.pair_count for origin in gone)
    parts = [
        f"{origin.pair_count:,} {'forgotten in' if origin.learned else 'left out of the training of'}"
        f" version {origin.number}"
        for origin in gone
    ]
    return (
        f"Of the {total:,} training {'pair' if total == 1 else 'pairs'} of this request were"
        f" {' and '.join(filter(None, (', '.join(parts[:-1]), parts[-1])))}. This version was measured"
        " on every one of them; the figures of each step by itself are in the audit of its version."
    )
