"""How fast single deletion requests are accepted, beside a bare endpoint that inserts one row.

All are endpoints of one uvicorn process on one database, called by the same clients in alternating
rounds, so that a busy machine slows all of them.
"""

import http.client
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import bare
from benchmarks.figures import Bar, BenchmarkError, Figure, median_figure
from benchmarks.service import BenchApi, Service, running_service

NAME = "posting"
CLIENTS = 8
ROUNDS = 9
ROUND_SECONDS = 3.0
PAIRS = 200_000
RATIO_BAR = Bar("at least", 0.5)
_TICKS = os.sysconf("SC_CLK_TCK")


class Endpoint:
    """An endpoint to be posted to, with the bodies for it.

    Args:
        service: the running service.
        path: of the endpoint.
        status: that it answers with.
        body: makes the body of the n-th request.
    """

    def __init__(
        self, service: Service, path: str, status: int, body: Callable[[int], bytes]
    ) -> None:
        self.path, self.status, self.body = path, status, body
        self.headers = {
            "Authorization": f"Bearer {service.token}",
            "Content-Type": "application/json",
        }
        self.rates: list[float] = []
        self.cpu: list[float] = []
        self._host = urlsplit(service.api.url).netloc
        self._pid = service.api.pid
        self._numbers = count()
        self._lock = threading.Lock()

    def round(self, seconds: float) -> None:
        """Post from all clients for ``seconds`` and note the rate and the API's CPU time."""
        used = _cpu_seconds(self._pid)
        began = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as clients:
            running = [clients.submit(self._post_until, began + seconds) for _ in range(CLIENTS)]
            posted = sum(client.result() for client in running)
        self.rates.append(posted / (time.perf_counter() - began))
        self.cpu.append(1000 * (_cpu_seconds(self._pid) - used) / posted)

    def _post_until(self, end: float) -> int:
        """Post over one connection until ``end``; return how often."""
        connection = http.client.HTTPConnection(self._host, timeout=60)
        try:
            posted = 0
            while time.perf_counter() < end:
                self._post(connection)
                posted += 1
            return posted
        finally:
            connection.close()

    def _post(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            number = next(self._numbers)
        connection.request("POST", self.path, self.body(number), self.headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != self.status:
            raise BenchmarkError(f"{self.path} answered {answer.status}: {content[:500]!r}")


def measure(work: Path) -> list[Figure]:
    """Post to the endpoints in turn and compare the rates of each turn."""
    with running_service(work, BenchApi) as service:
        requests = _requests(service, work)
        route, apart = _bare_rows(service, bare.ROUTE), _bare_rows(service, bare.APART)
        endpoints = [requests, route, apart]
        for endpoint in endpoints:  # connections, caches, plans
            endpoint.round(1.0)
            endpoint.rates.clear()
            endpoint.cpu.clear()
        for _ in range(ROUNDS):
            for endpoint in endpoints:
                endpoint.round(ROUND_SECONDS)
            endpoints.reverse()
    return _figures(requests, route, apart)


def _figures(requests: Endpoint, route: Endpoint, apart: Endpoint) -> list[Figure]:
    beside, beside_apart = (
        [one / other for one, other in zip(requests.rates, rows.rates, strict=True)]
        for rows in (route, apart)
    )
    costs = {"a bare row": route, "one past the middleware": apart}
    note = ", ".join(f"{statistics.median(of.cpu):.2f} ms for {name}" for name, of in costs.items())
    cpu = statistics.median(requests.cpu)
    return [
        median_figure(NAME, "rate of requests beside the bare endpoint", beside, "", RATIO_BAR),
        median_figure(NAME, "the same past the service's middleware", beside_apart, ""),
        median_figure(NAME, "single deletion requests", requests.rates, "/s"),
        median_figure(NAME, "rows by the bare endpoint", route.rates, "/s"),
        median_figure(NAME, "rows past the service's middleware", apart.rates, "/s"),
        Figure(NAME, "CPU time of the API for a request", cpu, "ms", note=note),
    ]


def _requests(service: Service, work: Path) -> Endpoint:
    """Register pairs and one version that learned them; each request names a pair of its own."""
    dataset_id = service.new_dataset("posting")
    file = work / "posting.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        lines.writelines(_rows())
    try:
        service.put_manifest(dataset_id, file)
    finally:
        file.unlink()
    service.upload_version(dataset_id, "posting")

    def body(number: int) -> bytes:
        targets = {"pair_ids": [f"pair-{number}"]}
        return json.dumps({"dataset_id": dataset_id, "targets": targets}).encode()

    return Endpoint(service, "/v1/deletion-requests", 202, body)


def _rows() -> Iterator[str]:
    for number in range(PAIRS):
        row = {
            "id": f"pair-{number}",
            "image": f"{number}.jpg",
            "text": f"caption {number}",
            "split": "train",
        }
        yield json.dumps(row) + "\n"


def _bare_rows(service: Service, path: str) -> Endpoint:
    def body(number: int) -> bytes:
        return json.dumps({"value": f"pair-{number}"}).encode()

    return Endpoint(service, path, 201, body)


def _cpu_seconds(pid: int | None) -> float:
    """Return the CPU time that a process has used so far (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
