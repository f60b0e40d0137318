"""Seconds by part, and what holds an extraction up."""

import pickle
import threading
from types import SimpleNamespace

from extract import meter as meter_module
from extract.meter import Meter


def test_the_bottleneck_is_the_part_that_takes_most():
    meter = Meter()
    assert meter.bottleneck == "" and meter.summary()["rows"] == 0
    meter.add({"network yolo26n": 5.0, "network resnet50": 3.0, "wait": 1.0, "decode": 9.0})
    assert meter.bottleneck == "network yolo26n"  # decoding goes on beside it


def test_where_it_waits_for_pictures_the_slowest_part_of_reading_is_named():
    meter = Meter()
    meter.add({"network yolo26n": 5.0, "wait": 6.0, "decode": 9.0, "read": 10.0})
    assert meter.bottleneck == "read"


def test_seconds_of_many_threads_add_up():
    meter = Meter()

    def count() -> None:
        for _ in range(1000):
            meter.add({"decode": 1.0})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert meter.seconds["decode"] == 4000


def test_measured_seconds_count_also_when_the_work_fails():
    meter = Meter()
    try:
        with meter.measure("read"):
            raise OSError
    except OSError:
        pass
    assert meter.seconds["read"] > 0


def test_the_summary_has_rates(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(meter_module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    meter = Meter()
    meter.pictures, meter.rows = 10, 30
    clock[0] += 5
    meter.add({"write": 1.0})
    found = meter.summary()
    assert (found["pictures_per_s"], found["rows_per_s"]) == (2, 6)
    assert found["parts"] == {"write": 1.0} and "2.0 pictures/s, 6.0 rows/s, write" in meter.line()


def test_in_another_process_it_starts_at_nothing():
    meter = Meter()
    meter.add({"read": 1.0})
    assert not pickle.loads(pickle.dumps(meter)).seconds
