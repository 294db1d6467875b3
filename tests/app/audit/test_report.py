"""The compliance report: what it says, to whom it can be shown, and that everybody can read it."""

from datetime import timedelta
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.db import Database
from app.datasets.tables import Dataset
from app.deletions.tables import RequestPair

VOID = {"meta", "link", "br", "hr", "img", "input"}
REPORT = "/v1/audit/requests/req_1/report"


class Page(HTMLParser):
    """Reads a page, and raises where elements are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        if self.open:
            raise ValueError(f"not closed: {self.open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            raise ValueError(f"</{tag}> closes nothing; open are {self.open}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def completed(case: Any) -> Any:
    """Give a request that was met by one version."""
    case.file()
    case.run()
    case.complete("req_1", "ver_2")
    return case


def test_the_report_says_what_was_asked_done_and_measured(
    client: TestClient, completed: Any
) -> None:
    report = client.get(REPORT).json()
    assert report["request"]["pair_count"] == 160
    assert report["guarantee"] == "approximate"
    assert report["guarantee_sentence"].startswith("Approximate: ")
    assert report["limitations"] == ["Image and text on their own are kept."]
    assert report["certificate_available"] is True
    assert "completed in time: on 01 March 2026, 11:30 UTC" in report["summary"][-1]
    assert "A new version was made with method multidelete" in " ".join(report["summary"])
    [version] = report["versions"]
    found = {finding["name"]: finding for finding in version["findings"]}
    assert found["d_f"]["before"]["value"] == 50.3
    assert found["d_f"]["after"]["interval"] == [8.5, 14.75]
    assert found["d_f"]["after"]["n"] == 160
    assert "50 means" in found["d_f"]["meaning"]
    assert found["unseen_auc"]["reading"] == "Deleted pairs cannot be told from never seen ones."
    assert found["mi_ratio"]["before"] is None
    assert found["mi_ratio"]["after"]["text"] == "not available: needs at least 20 pairs"
    assert any("measured honestly" in sentence for sentence in report["does_not_prove"])


SHOWN = (
    "Emoji search, version 2. Deleted against kept pairs: Before, they looked like kept pairs. The"
    " model now takes deleted pairs for less related than kept ones."
)
NOT_SHOWN = (
    "Emoji search, version 2. Deleted against kept pairs: Deleted pairs cannot be told from kept"
    " ones: no forgetting is shown."
)


@pytest.mark.parametrize(
    ("after", "interval", "said"),
    [(40.0, (34.0, 45.0), SHOWN), (52.0, (47.0, 57.0), NOT_SHOWN)],
)
def test_the_report_says_in_short_whether_forgetting_is_shown(
    client: TestClient, case: Any, after: float, interval: tuple[float, float], said: str
) -> None:
    before = d_f("forget") | {"moment": "before", "value": 50.0, "interval": (46.0, 54.0)}
    if said == NOT_SHOWN:  # the intervals have nothing in common, yet 50 lies in the second one
        before |= {"value": 70.0, "interval": (66.0, 74.0)}
    case.metrics = [before, d_f("forget") | {"value": after, "interval": interval}]
    case.file()
    case.run()
    case.complete("req_1", "ver_2")
    report, page = client.get(REPORT).json(), page_of(client)
    assert said in report["summary"]
    assert page.text.index(said) < page.text.index("What was asked")


def test_the_verdict_in_short_names_never_seen_pairs_too(
    client: TestClient, completed: Any
) -> None:
    [said] = [one for one in client.get(REPORT).json()["summary"] if "version 2." in one]
    assert said.endswith(
        "Deleted against never seen pairs: Deleted pairs cannot be told from never seen ones."
    )


EXCEEDED = {"value": 1.3, "details": {"lost": 2.6, "granted": 1.0, "standard_error": 0.3}}
GRANTED = {"value": 0.0, "details": {"lost": 1.2, "granted": 1.0, "standard_error": 0.3}}


@pytest.mark.parametrize(
    ("excess", "figure"),
    [
        (EXCEEDED, "1.3 points (2.6 lost, 1.0 granted, 0.3 for chance)"),
        (GRANTED, "0.0 points (1.2 lost, 1.0 granted, 0.3 for chance)"),
    ],
)
def test_a_loss_of_quality_beyond_what_was_granted_is_told_in_short(
    client: TestClient, case: Any, excess: dict[str, Any], figure: str
) -> None:
    test, held_out = (
        d_f(subset) | {"name": "d_test", "direction": "higher"} for subset in ("test", "val")
    )
    one = d_f("val") | {"name": "utility_excess", "interval": None, "unit": "points"} | excess
    case.metrics = [d_f("forget"), test, held_out, one]
    case.file(params={"utility_drop": 1.0, "keep": "best"})
    case.run()
    case.complete("req_1", "ver_2")
    page = page_of(client)
    assert figure in page.text
    assert "utility_drop = 1.0" in page.text
    assert 'keep = "best"' in page.text
    summary = " ".join(client.get(REPORT).json()["summary"])
    told = "Quality on validation pairs: More was lost than was granted: 1.3 points"
    assert (told in summary) is (excess is EXCEEDED)


def test_what_was_forgotten_before_is_only_told_where_it_was_counted(
    client: TestClient, case: Any
) -> None:
    case.file(not_trained_count=3)
    assert "160, of which 3 never trained on" in page_of(client).text
    case.file("req_2", not_trained_count=3, already_forgotten_count=40)
    page = Page(client.get("/v1/audit/requests/req_2/report", params={"format": "html"}).text)
    told = "160, of which 40 forgotten or asked for before and 3 never trained on"
    assert told in page.text


def test_the_report_lists_the_leaves_and_a_signed_head(client: TestClient, completed: Any) -> None:
    ledger = client.get(REPORT).json()["ledger"]
    assert [leaf["kind"] for leaf in ledger["leaves"]] == ["request_received", "request_completed"]
    assert [leaf["leaf_index"] for leaf in ledger["leaves"]] == [0, 1]
    head = client.get("/v1/ledger/head").json()
    assert (ledger["size"], ledger["note"]) == (head["size"], head["note"])


def test_the_report_names_neither_pairs_nor_the_reason(
    client: TestClient, completed: Any, database: Database
) -> None:
    with database.transaction() as session:
        session.add(
            RequestPair(request_id="req_1", pair_id=completed.secret_pair, dataset_id="ds_1")
        )
    for form in ("json", "html"):
        text = client.get(REPORT, params={"format": form}).text
        assert completed.secret_pair not in text
        assert "Ada" not in text


@pytest.mark.parametrize(
    ("accept", "form", "expected"),
    [
        (None, None, "application/json"),
        ("*/*", None, "application/json"),
        ("application/json", None, "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", None, "text/html; charset=utf-8"),
        ("application/json, text/html", None, "application/json"),
        ("text/html", "json", "application/json"),
        ("application/json", "html", "text/html; charset=utf-8"),
    ],
)
def test_the_form_of_the_report_is_the_one_asked_for(
    client: TestClient, completed: Any, accept: str | None, form: str | None, expected: str
) -> None:
    headers = {} if accept is None else {"Accept": accept}
    params = {} if form is None else {"format": form}
    response = client.get(REPORT, headers=headers, params=params)
    assert response.headers["content-type"] == expected
    assert response.headers["vary"] == "Accept"


def test_an_unknown_form_is_refused(client: TestClient, completed: Any) -> None:
    assert client.get(REPORT, params={"format": "pdf"}).status_code == 422


def page_of(client: TestClient) -> Page:
    return Page(client.get(REPORT, params={"format": "html"}).text)


def test_the_page_says_the_same_as_the_json(client: TestClient, completed: Any) -> None:
    report, page = client.get(REPORT).json(), page_of(client)
    sentences = [*report["summary"], *report["limitations"], *report["does_not_prove"]]
    for finding in report["versions"][0]["findings"]:
        sentences += [finding["title"], finding["meaning"], finding["reading"]]
        sentences += [one["text"] for one in (finding["before"], finding["after"]) if one]
    for sentence in [*sentences, report["guarantee_sentence"], "Emoji <&> captions"]:
        assert " ".join(sentence.split()) in page.text


def test_the_page_can_be_read_with_a_screen_reader(client: TestClient, completed: Any) -> None:
    page = page_of(client)
    assert page.named("html") == [{"lang": "en"}]
    assert len(page.named("title")) == len(page.named("h1")) == len(page.named("main")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if tag in {"h1", "h2", "h3", "h4"}]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.named("table")) == len(page.named("caption")) == 2
    assert all(header.get("scope") in {"col", "row"} for header in page.named("th"))
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    targets = {str(link["href"]).removeprefix("#") for link in page.named("a")}
    assert targets <= set(identifiers)


def test_the_page_needs_no_script_and_no_other_file(client: TestClient, completed: Any) -> None:
    response = client.get(REPORT, params={"format": "html"})
    page = Page(response.text)
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not page.named("script")
    assert not page.named("link")
    assert not any("src" in attributes for _, attributes in page.elements)
    assert not any(name.startswith("on") for _, found in page.elements for name in found)
    assert "@media print" in response.text


LABELS = {
    label: {"value": value, "interval": [value - 2, value + 2], "n": 80, "unavailable": None}
    for label, value in (("0", 14.5), ("1", 8.0))
}
SPREAD = {
    "low": 0.0,
    "high": 1.0,
    "deleted": [90, 60, *[0] * 17, 10],
    "retained": [*[0] * 18, 40, 120],
    "unseen": [*[0] * 10, 160, *[0] * 9],
}


def test_the_report_shows_labels_and_the_spread_of_scores(client: TestClient, case: Any) -> None:
    case.metrics = [
        d_f("forget") | {"details": {"per_label": LABELS, "histograms": SPREAD}},
        d_f("forget")
        | {"moment": "before", "details": {"per_label": LABELS, "histograms": SPREAD}},
    ]
    case.file()
    case.run()
    [version] = client.get(REPORT).json()["versions"]
    assert [one["label"] for one in version["findings"][0]["per_label"]] == ["0", "1"]
    assert [one["moment"] for one in version["score_spreads"]] == ["before", "after"]
    page = page_of(client)
    assert len(page.named("table")) == len(page.named("caption")) == 3
    assert "14.5 (12.5 to 16.5)" in page.text
    reading = "Half of the pairs score above about: deleted 0.03, kept 0.97, never seen 0.53."
    assert page.text.count(reading) == 2
    images = page.named("svg")
    assert [(image["role"], image["aria-label"]) for image in images] == [("img", reading)] * 2
    # One bar for each bin with pairs in it: 3 + 2 + 1, as high as their share of the fullest.
    heights = [bar["height"] for bar in page.named("rect")]
    assert heights == ["36.0", "24.0", "4.0", "12.0", "36.0", "36.0"] * 2


def test_figures_of_the_aim_calibrated_are_read_by_it(client: TestClient, case: Any) -> None:
    case.file(objective="calibrated")
    case.run()
    [version] = client.get(REPORT).json()["versions"]
    found = {finding["name"]: finding for finding in version["findings"]}
    assert found["unseen_auc"]["reading"].endswith("This is the aim 'calibrated'.")


def test_a_request_in_progress_has_a_report_without_a_guarantee(
    client: TestClient, case: Any
) -> None:
    case.file()
    report = client.get(REPORT).json()
    assert (report["guarantee"], report["certificate_available"]) == ("none_yet", False)
    assert "The request is in progress." in report["summary"]
    assert "It is due by 01 April 2026, 09:30 UTC." in report["summary"]
    assert "No version was made for this request so far." in page_of(client).text


def test_a_request_that_needs_attention_says_why(client: TestClient, case: Any) -> None:
    case.file(status="needs_attention", status_reason="Job job_1 failed: image 7 is broken.")
    assert "Job job_1 failed: image 7 is broken." in " ".join(client.get(REPORT).json()["summary"])


def test_a_request_for_pairs_that_nobody_learned_says_so(client: TestClient, case: Any) -> None:
    case.file(not_trained_count=160)
    case.complete("req_1")
    report = client.get(REPORT).json()
    assert report["guarantee"] == "not_needed"
    assert "Never trained on (validation or test): 160 pairs." in report["summary"]
    assert "No registered version in use had learned from the pairs" in " ".join(report["summary"])
    assert "No version was made for this request." in page_of(client).text


def test_a_request_completed_after_its_deadline_is_said_to_be_late(
    client: TestClient, case: Any
) -> None:
    case.file(deadline=case.received + timedelta(hours=1))
    case.complete("req_1")
    assert "It was completed too late" in client.get(REPORT).json()["summary"][-1]


def test_a_request_met_by_an_earlier_one_refers_to_it(client: TestClient, completed: Any) -> None:
    completed.file(
        "req_2",
        status="completed",
        met_by_request_id="req_1",
        already_forgotten_count=160,
        completed_time=completed.received,
    )
    report = client.get("/v1/audit/requests/req_2/report").json()
    assert "the certificate of request req_1 holds" in " ".join(report["summary"])
    assert report["guarantee"] == "approximate"
    assert [version["version_id"] for version in report["versions"]] == ["ver_2"]


def subsets_of(client: TestClient) -> list[str]:
    [version] = client.get(REPORT).json()["versions"]
    return list(dict.fromkeys(finding["subset"] for finding in version["findings"]))


def d_f(subset: str, n: int = 160) -> dict[str, Any]:
    return {
        "name": "d_f",
        "moment": "after",
        "subset": subset,
        "value": 12.0,
        "interval": (9.0, 15.0),
        "n": n,
        "direction": "lower",
    }


def test_where_requests_share_a_job_only_the_own_pairs_are_shown(
    client: TestClient, case: Any
) -> None:
    case.metrics += [d_f("request:req_1", n=100), d_f("request:req_2", n=60), d_f("forgotten")]
    case.file()
    case.run()
    assert subsets_of(client) == ["test", "request:req_1", "forgotten"]


def test_all_that_was_ever_forgotten_is_shown_where_it_is_more(
    client: TestClient, case: Any
) -> None:
    case.metrics += [d_f("forgotten", n=320)]
    case.file()
    case.run()
    assert subsets_of(client) == ["test", "forget", "forgotten"]


def test_all_that_was_ever_forgotten_is_not_repeated_where_it_is_the_same(
    client: TestClient, case: Any
) -> None:
    case.metrics += [d_f("forgotten", n=160)]
    case.file()
    case.run()
    assert subsets_of(client) == ["test", "forget"]


def test_a_version_whose_audit_is_missing_is_reported_as_not_measured(
    client: TestClient, case: Any
) -> None:
    case.metrics = []
    case.file()
    case.run()
    assert "Nothing was measured on this version." in page_of(client).text
    assert "was not measured: no forgetting is shown." in " ".join(
        client.get(REPORT).json()["summary"]
    )


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"train": 90, "val": 5, "test": 5}, []),
        ({"train": 90, "test": 5}, ["no validation pairs"]),
        ({"train": 90, "val": 5}, ["(Emoji search, version 2): the dataset has no test pairs."]),
    ],
)
def test_a_dataset_without_held_out_pairs_is_said_to_hide_what_forgetting_cost(
    client: TestClient, case: Any, splits: dict[str, int], said: list[str]
) -> None:
    if "test" not in splits:
        nothing = {"value": None, "interval": None, "n": 0, "unavailable": "no pair to measure"}
        case.metrics = [one | nothing if one["name"] == "d_test" else one for one in case.metrics]
    case.file()
    with case.database.transaction() as session:
        session.get_one(Dataset, "ds_1").split_counts = splits
    case.run()
    case.complete("req_1", "ver_2")
    told = [one for one in client.get(REPORT).json()["summary"] if "dataset has no" in one]
    assert len(told) == len(said)
    assert all(part in one for part, one in zip(said, told, strict=True))
