import pytest

from engine.errors import Cancelled
from engine.monitor import Monitor
from engine.spec import Progress


def test_progress_is_due_at_first_and_not_at_once_again() -> None:
    events: list[Progress] = []
    monitor = Monitor(on_progress=events.append)
    assert monitor.due()
    monitor.report("train", 1, 10, {"loss": 0.5})
    assert not monitor.due()
    assert events == [Progress(phase="train", step=1, total=10, losses={"loss": 0.5})]


def test_without_a_listener_nothing_is_ever_due() -> None:
    monitor = Monitor()
    assert not monitor.due()
    monitor.report("train", 1, 10)


def test_the_control_of_the_caller_decides_whether_to_go_on() -> None:
    class Stop:
        def check(self) -> None:
            raise Cancelled("enough")

    Monitor().check()
    with pytest.raises(Cancelled, match="enough"):
        Monitor(control=Stop()).check()
