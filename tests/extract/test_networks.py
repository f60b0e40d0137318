"""What all networks share: batches that halve where memory ends, and precision."""

import logging
from types import SimpleNamespace

import pytest
import torch

from cache.errors import DeviceMemoryError
from extract import settings as config
from extract.backbones import load_backbone
from extract.detectors import load_detector
from extract.loaded import Networks
from extract.networks import Network
from tests.networks import untrained


class Small(Network):
    """Doubles numbers, as long as a batch is not larger than the memory."""

    @classmethod
    def rule(cls, weights):
        return {}

    def __init__(self, memory: int, error: Exception):
        super().__init__(untrained("resnet18"))
        self.memory, self.error, self.sizes = memory, error, []

    def __call__(self, numbers: list[int]) -> list[int]:
        return [n for part in self.batched(numbers, self.doubled) for n in part]

    def doubled(self, numbers: list[int]) -> list[int]:
        self.sizes.append(len(numbers))
        if len(numbers) > self.memory:
            raise self.error
        return [2 * number for number in numbers]


FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", FULL, ids=["gpu", "cpu"])
def test_batches_halve_where_memory_ends_and_nothing_is_lost(error, caplog):
    network = Small(5, error)
    with caplog.at_level(logging.WARNING, "extract"):
        assert network(list(range(40))) == [2 * number for number in range(40)]
    assert network.sizes[:4] == [32, 16, 8, 4] and network.batch == 4
    assert set(network.sizes[3:]) == {4}
    assert "extract.batch" in caplog.text
    assert network(list(range(6))) == [0, 2, 4, 6, 8, 10]
    assert network.sizes[-2:] == [4, 2]  # it remembers


def test_one_input_that_does_not_fit_is_a_sentence():
    with pytest.raises(DeviceMemoryError, match=r"memory of cpu does not hold resnet18 .*device"):
        Small(0, FULL[0])([1, 2, 3])


def test_other_errors_are_not_taken_for_full_memory():
    network = Small(1, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="multiplied"):
        network([1, 2, 3])
    assert network.sizes == [3]


def test_features_do_not_depend_on_the_batch():
    network = load_backbone(
        "resnet18", config.Weights(source=["untrained"], untrained=["resnet18"])
    )
    pictures = torch.randint(0, 256, (7, 3, 64, 64), dtype=torch.uint8)
    network.batch = 32
    whole = network(pictures)
    for batch in (1, 2, 5):
        network.batch = batch
        torch.testing.assert_close(network(pictures), whole, rtol=0, atol=1e-4)


def test_low_precision_stays_close_and_gives_float32():
    settings = config.Weights(source=["untrained"], untrained=["resnet18"])
    pictures = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    full = Networks(settings).backbone("resnet18", "picture")(pictures)
    low = Networks(settings, precision="bfloat16").backbone("resnet18", "picture")(pictures)
    assert low.dtype == torch.float32 and not torch.equal(low, full)
    assert torch.nn.functional.cosine_similarity(low, full).min() > 0.999


def test_boxes_keep_full_precision():
    """The detector's backbone runs in bfloat16, what decides on boxes does not."""
    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    settings = config.Weights(source=["untrained"], untrained=[name])
    picture = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)
    detector = load_detector(name, settings)
    seen = []
    rpn = detector.model.rpn.forward

    def watched(images, features):
        seen.extend(values.dtype for values in features.values())
        boxes, losses = rpn(images, features)
        seen.extend(some.dtype for some in boxes)
        return boxes, losses

    detector.model.rpn.forward = watched
    detector.precision = "bfloat16"
    detector([picture])
    assert set(seen) == {torch.float32}


def test_seconds_are_counted_by_network(monkeypatch):
    settings = config.Weights(source=["untrained"], untrained=["resnet18"])
    networks = Networks(settings, on_load=lambda weights: None, batch=3, precision="float16")
    network = networks.backbone("resnet18", "picture")
    assert (network.batch, network.precision, network.width) == (3, "float16", 512)
    assert networks.meter.seconds["load"] > 0
    network.network = SimpleNamespace(name="resnet18", device=torch.device("cpu"))
    network.network = type("Echo", (), {**vars(network.network), "__call__": lambda _, x: x})()
    assert network(5) == 5 and networks.meter.seconds["network resnet18"] > 0
