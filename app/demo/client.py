"""A caller of the service: plain HTTP with a bearer token, and waiting for jobs."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

Json = dict[str, Any]
_POLL_SECONDS = 0.5
_ENDED = ("succeeded", "failed", "cancelled")
_SETTLED = ("completed", "needs_attention", "denied", "cancelled")


class DemoError(RuntimeError):
    """The demo cannot go on; the sentence says why."""


class Caller:
    """Talks to the API as a data-governance system would.

    Args:
        url: base URL of the API.
        token: bearer token.
    """

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Json:
        """Return the JSON object at ``path``."""
        body: Json = self._checked(self._http.get(path, params=query)).json()
        return body

    def text(self, path: str, **query: Any) -> str:
        """Return the text at ``path``."""
        return self._checked(self._http.get(path, params=query)).text

    def post(self, path: str, body: Json) -> Json:
        """Post ``body`` under an idempotency key of its own and return the answer."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        answer: Json = self._checked(self._http.post(path, json=body, headers=headers)).json()
        return answer

    def put_manifest(self, path: str, manifest: Path) -> Json:
        """Stream a manifest of JSON lines to ``path`` and return the answer."""
        headers = {"Content-Type": "application/x-ndjson"}
        with manifest.open("rb") as content:
            response = self._http.put(path, content=content, headers=headers)
        answer: Json = self._checked(response).json()
        return answer

    @contextmanager
    def download(self, path: str) -> Iterator[Iterator[bytes]]:
        """Give the bytes at ``path`` piece by piece."""
        with self._http.stream("GET", path) as response:
            if response.is_error:
                response.read()
            yield self._checked(response).iter_bytes(2**20)

    def follow_job(self, job_id: str, watch: Callable[[Json], None]) -> Json:
        """Wait until a job has ended, giving it to ``watch`` as it goes, and return it.

        Raises:
            DemoError: it failed or was cancelled.
        """
        while True:
            job = self.get(f"/jobs/{job_id}")
            watch(job)
            if job["status"] in _ENDED:
                break
            time.sleep(_POLL_SECONDS)
        if job["status"] != "succeeded":
            raise DemoError(f"The {job['kind']} job {job_id} {job['status']}: {job['error']}")
        return job

    def settled_request(self, request_id: str) -> Json:
        """Wait until a deletion request is completed and return it.

        Raises:
            DemoError: it ended in any other way.
        """
        while (request := self.get(f"/deletion-requests/{request_id}"))["status"] not in _SETTLED:
            time.sleep(_POLL_SECONDS)
        if request["status"] != "completed":
            raise DemoError(
                f"The deletion request {request_id} is {request['status']}: "
                f"{request['status_reason']}"
            )
        return request

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_error:
            raise DemoError(
                f"{response.request.method} {response.request.url.path} was answered "
                f"{response.status_code}: {_problem(response)}"
            )
        return response


def _problem(response: httpx.Response) -> str:
    """Return what a problem document says, or the start of any other body."""
    try:
        body: Mapping[str, Any] = response.json()
        return f"{body['detail']} {body.get('errors', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return response.text[:500]
