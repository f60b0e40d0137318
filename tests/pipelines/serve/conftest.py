"""A server on a small fitted head and the cache that it was fitted on, with views that are worked
out without a network."""

import contextlib
import io
import threading
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from cache.boxes import WHOLE
from cache.index import Index
from cache.spec import Row
from cache.statuses import STATUS
from extract import images
from extract.detectors import Detections
from pipelines.predict import Predictor, thresholds_of
from pipelines.results import Results, write_csv
from pipelines.serve.app import make_app
from pipelines.serve.desk import Desk
from pipelines.serve.persons import Persons
from pipelines.serve.run import listen
from pipelines.settings import Serve, Settings
from tests.networks import given, untrained
from tests.train import made
from train.checkpoint import load_head, save_head
from train.data import load
from train.fit import fit
from train.heads import get_head

HOME = "http://127.0.0.1:8517"
LIMITS = Serve(upload_mb=0.5, batch_mb=1, batch=3, pixels=250_000, people=3, kept=2)
THRESHOLDS = {"calm": 0.25, "glad": 0.5, "sad": float("nan"), "tense": 0.75}


class Finds:
    """Stands for the people detector: as many persons side by side as the picture is 100 pixels
    wide, nobody in a picture of one colour. `hold`: waits for this event first."""

    name, classes = "finds", ("person",)

    def __init__(self):
        self.calls, self.hold = 0, None
        self.widths: list[int] = []  # of the pictures seen

    def __call__(self, pictures):
        if self.hold is not None:
            assert self.hold.wait(20)
        self.calls += 1
        found = []
        for picture in pictures:
            _, height, width = picture.shape
            self.widths.append(width)
            count = 0 if picture.min() == picture.max() else width // 100
            left = 100.0 * np.arange(count)
            boxes = np.stack([left + 5, left * 0 + 5, left + 95, left * 0 + height - 5], 1)
            scores = np.linspace(0.9, 0.5, count)
            found.append(
                Detections(
                    boxes.astype(np.float32), scores.astype(np.float32), np.zeros(count, int)
                )
            )
        return found


class Drawn:
    """Stands for a view: rows drawn by a seed that the pixels of the subject give."""

    def __init__(self, name, given):
        self.name, self.space, self._spec = name, given.spec.space, given.spec

    def spec(self, networks):
        return self._spec

    def run(self, subjects, networks):
        return [self._row(subject) for subject in subjects]

    def _row(self, subject):
        seen = subject.pixels
        if subject.box != WHOLE:
            seen = images.crop(seen, subject.box)
        rng = np.random.default_rng(zlib.crc32(seen.tobytes()))
        values = {
            name: rng.normal(size=array.shape).astype(array.dtype)
            for name, array in self._spec.arrays.items()
        }
        if self.name == "head":
            x1, y1, x2, _ = subject.box
            values["box"] = np.float32((x1 + 30, y1 + 5, x2 - 30, y1 + 35))
        if self.name == "objects":
            corner = rng.uniform(0, 60, (made.K, 2))
            values["box"] = np.concatenate([corner, corner + 30], 1).astype(np.float32)
            values["label"] = rng.integers(0, 5, made.K).astype(np.int16)
            values["score"] = np.full(made.K, 0.75, np.float16)
            values["count"] = np.int16(made.K)
        return Row("ok", values)


def _facts(view):
    """Of the weights of a view: that of depth is untrained."""
    return (untrained("deep") if view == "depth" else given("wide", None)).facts()


# Persons of the cache who do not count: the index says so, or a view.
REMOVED, FAILED = 6, 9
# Pictures of the cache, by row: as the index knows it, another one by now, a link that leads out of
# the folder, a path that does; all others are not there.
THERE, OTHER, LINK, OUTSIDE = 1, 2, 4, 5


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Results:
    """A head fitted on a cache beside it, `features`, of pictures in `data`; and the thresholds of
    its evaluation."""
    folder = tmp_path_factory.mktemp("served")
    write_project(folder)
    settings = made.settings(epochs=6)
    features = load(folder / "features", get_head("hugme").views(settings))
    fitted = fit(features, settings)
    found = Results(folder / "results")
    about = {"positives": dict.fromkeys(features.labels, 9), "seed": 0, "best_epoch": 5}
    info = save_head(found.head, fitted.model, settings, features, {}, about)
    write_csv(
        found.per_class,
        ["label", "threshold"],
        [{"label": label, "threshold": value} for label, value in THRESHOLDS.items()],
    )
    found.write_metrics({"test": {}, "provenance": {"head_sha256": info["sha256"]}})
    return found


def write_project(folder) -> None:
    """A cache of 160 persons, two a picture, and the few pictures that are there."""
    arrays = made.arrays(persons=160)
    arrays["views"] = {
        name: replace(view, spec=replace(view.spec, weights=[_facts(name)]))
        for name, view in arrays["views"].items()
    }
    objects = arrays["views"]["objects"].arrays
    objects["region"] = objects["features"][::-1].copy()  # which the head does not take
    arrays["status"][REMOVED] = "removed"
    arrays["views"]["body"].status[FAILED] = STATUS["bad_box"]
    root, data = folder / "features", folder / "data"
    made.write_cache(root, arrays)
    index = Index.read(root)
    ids, paths = index.pictures["id"].to_pylist(), index.pictures["path"].to_pylist()
    data.mkdir()
    for row, place in ((THERE, data), (OTHER, data), (OUTSIDE, folder)):
        (place / paths[row]).write_bytes(picture(640, 480, row))
        ids[row] = images.header(place / paths[row]).id
    (data / paths[OTHER]).write_bytes(picture(640, 480, 99))
    (data / paths[LINK]).symlink_to(folder / paths[OUTSIDE])
    paths[OUTSIDE] = f"../{paths[OUTSIDE]}"
    columns = {"id": ids, "path": paths}
    pictures = index.pictures
    for name, values in columns.items():
        at = pictures.column_names.index(name)
        pictures = pictures.set_column(at, name, pa.array(values, pa.string()))
    replace(index, pictures=pictures).write(root)


@pytest.fixture(scope="session")
def settings(results) -> Settings:
    """Of that project."""
    given, place = Settings(), results.folder.parent
    data = given.data.model_copy(update={"name": "made", "root": place / "data"})
    cache = given.cache.model_copy(update={"root": place / "features"})
    return given.model_copy(update={"data": data, "cache": cache})


@pytest.fixture
def finds() -> Finds:
    return Finds()


@pytest.fixture
def predictor(results, settings, finds) -> Predictor:
    model, info = load_head(results.head)
    views = {
        name: Drawn(name, view)
        for name, view in made.arrays(persons=8)["views"].items()
        if name != "labels"
    }
    networks = SimpleNamespace(
        detector=lambda name, kind: finds,
        weights=lambda name: given(name, None),
        device=lambda: "cpu",
    )
    thresholds = thresholds_of(results.head, info)
    return Predictor(settings, networks, views, model, info, thresholds)


@pytest.fixture
def persons(settings, predictor) -> Persons:
    return Persons.open(settings, predictor.model, predictor.info)


@pytest.fixture
def desk(predictor, results, persons) -> Desk:
    return Desk(predictor, LIMITS, persons)


@pytest.fixture
def client(desk):
    with TestClient(make_app(desk), base_url=HOME, raise_server_exceptions=False) as found:
        yield found


@contextlib.contextmanager
def running(desk):
    """A real server in a thread; its address."""
    server = uvicorn.Server(
        uvicorn.Config(make_app(desk), log_level="critical", timeout_graceful_shutdown=1)
    )
    with listen("127.0.0.1", 0) as socket:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def picture(width=200, height=120, seed=0, form="PNG") -> bytes:
    """Blocks of colours: as many people as it is 100 pixels wide."""
    shape = (height // 10, width // 10, 3)
    blocks = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    held = io.BytesIO()
    Image.fromarray(blocks.repeat(10, 0).repeat(10, 1)).save(held, form)
    return held.getvalue()


def send(client, data: bytes, name="a.png", **fields):
    return client.post("/api/predict", files={"picture": (name, data)}, data=fields)
