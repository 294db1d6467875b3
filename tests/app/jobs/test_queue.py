"""Messages to workers: sent by a thread, lost without harm."""

import time

from redis import Redis

from app.jobs.queue import NAME, Queue


def _waiting(redis_url: str) -> int:
    with Redis.from_url(redis_url) as redis:
        deadline = time.monotonic() + 10
        while not (count := redis.llen(NAME)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return int(count)


def test_a_dispatched_job_waits_in_redis(redis_url: str) -> None:
    queue = Queue(redis_url)
    queue.dispatch("job_one")
    assert _waiting(redis_url) == 1
    queue.close()


def test_closing_sends_what_waits(redis_url: str) -> None:
    queue = Queue(redis_url)
    for number in range(20):
        queue.dispatch(f"job_{number}")
    queue.close()
    assert _waiting(redis_url) == 20


def test_a_broker_that_is_gone_delays_nobody() -> None:
    queue = Queue("redis://127.0.0.1:1/0")
    began = time.monotonic()
    for number in range(100):
        queue.dispatch(f"job_{number}")
    assert time.monotonic() - began < 1
    queue.close(timeout=0.1)
