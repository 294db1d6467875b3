"""A manifest of a million pairs and a request that names 100,000 of them: seconds and memory.

Each is sent to an API process that has just started, so that what it needs for the first time
counts as growth.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.figures import Bar, BenchmarkError, Figure
from benchmarks.memory import watched
from benchmarks.service import JSON_LINES, PARQUET, Service, running_service

NAME = "intake"
PAIRS = 1_000_000
NAMED = 100_000
MANIFEST_BAR, REQUEST_BAR, GROWTH_BAR = Bar("below", 120), Bar("below", 10), Bar("below", 200)
_TEXTS_OF_AN_IMAGE = 5
_SPLITS = ("train",) * 18 + ("val", "test")


def measure(work: Path) -> list[Figure]:
    """Put the manifest in both formats, then post the request against the million pairs."""
    figures: list[Figure] = []
    dataset_id = ""
    with TemporaryDirectory(dir=work) as name, running_service(work) as service:
        manifests = (
            ("JSON lines", JSON_LINES, _write_lines(Path(name, "pairs.jsonl"))),
            ("Parquet", PARQUET, _write_parquet(Path(name, "pairs.parquet"))),
        )
        for form, media_type, file in manifests:
            dataset_id = service.new_dataset(form)
            put = _manifest(service, dataset_id, file, media_type)
            figures += _measured(service, f"{PAIRS:,} pairs as {form}", MANIFEST_BAR, put)
        service.upload_version(dataset_id, "model")
        post = _request(service, dataset_id)
        return [*figures, *_measured(service, f"{NAMED:,} ids in a request", REQUEST_BAR, post)]


def _measured(service: Service, what: str, bar: Bar, send: Callable[[], str]) -> list[Figure]:
    """Start the API afresh and measure one call, which returns a note about itself."""
    service.api.start()
    with watched(service.api.pid) as memory:
        began = time.perf_counter()
        note = send()
        seconds = time.perf_counter() - began
    before = f"from {memory.before / 1e6:.0f} MB, just started"
    return [
        Figure(NAME, f"{what}: accepted after", seconds, "s", bar, note),
        Figure(NAME, f"{what}: growth of the API", memory.growth, "MB", GROWTH_BAR, before),
    ]


def _manifest(service: Service, dataset_id: str, file: Path, media_type: str) -> Callable[[], str]:
    def put() -> str:
        dataset = service.put_manifest(dataset_id, file, media_type)
        _expect(dataset["pair_count"], PAIRS, "pairs registered")
        return f"a body of {file.stat().st_size / 1e6:.0f} MB"

    return put


def _request(service: Service, dataset_id: str) -> Callable[[], str]:
    """Prepare the request: its pairs lie all over the training split."""
    train = [pair_id for pair_id, split in _names() if split == "train"]
    chosen = train[:: len(train) // NAMED][:NAMED]
    body = {"dataset_id": dataset_id, "targets": {"pair_ids": chosen}}

    def post() -> str:
        request = service.post("/deletion-requests", body)
        _expect(request["pair_count"], NAMED, "pairs in the request")
        _expect(len(request["jobs"]), 1, "jobs of the request")
        return f"against {PAIRS:,} pairs, with one version to unlearn"

    return post


def _expect(found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise BenchmarkError(f"Expected {wanted:,} {what}; the service answered {found:,}.")


def _names() -> Iterator[tuple[str, str]]:
    """Yield the id and the split of each pair."""
    for number in range(PAIRS):
        image = number // _TEXTS_OF_AN_IMAGE
        yield f"{image:07d}-{number % _TEXTS_OF_AN_IMAGE}", _SPLITS[image % len(_SPLITS)]


def _rows() -> Iterator[dict[str, str]]:
    """Yield the rows of a captioned-image data set: five texts for an image, as in Flickr30k."""
    for pair_id, split in _names():
        image = f"{pair_id[:7]}.jpg"
        yield {
            "id": pair_id,
            "image": f"images/{image}",
            "item_id": image,
            "text": f"Two people in bright coats walk past shop number {pair_id} in the rain.",
            "text_id": f"text-{pair_id}",
            "split": split,
        }


def _write_lines(file: Path) -> Path:
    with file.open("w", encoding="utf-8") as lines:
        for row in _rows():
            lines.write(json.dumps(row) + "\n")
    return file


def _write_parquet(file: Path) -> Path:
    """Write the rows with pyarrow's own settings, as a caller would who sets none."""
    pq.write_table(pa.Table.from_pylist(list(_rows())), file)
    return file
