"""Data of strangers: whatever a table or a folder holds, nothing outside `data.root` is opened."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from cache.errors import DataError
from cache.index import Index
from extract import images
from extract.datasets._reading import Faults
from extract.prepare import check, prepare
from extract.settings import Data

BOX = [1, 1, 9, 9]
LINK = (
    "a link leads out of data.root: it is not followed; set data.follow_links to true for data "
    "that you trust"
)
ROOT = Path(__file__).resolve().parents[2]


class Watch:
    """What files this process opens and folders it lists, links followed, while it is told to."""

    def __init__(self) -> None:
        self.opened: set[str] | None = None

    def __call__(self, event: str, given: tuple) -> None:
        if self.opened is not None and event in ("open", "os.scandir", "os.listdir"):
            path = given[0]
            if isinstance(path, str | bytes | os.PathLike):
                self.opened.add(os.path.realpath(os.fsdecode(path)))


@pytest.fixture(scope="module")
def watch() -> Watch:
    found = Watch()
    sys.addaudithook(found)  # there is no way to take one back: it is switched off instead
    return found


class Stranger:
    """A data set below `root`, and a picture beside it that nobody gave."""

    def __init__(self, base: Path, watch: Watch) -> None:
        self.base, self.root, self.outside = base, base / "data", base / "outside"
        self.watch = watch
        for folder in (self.root, self.outside):
            folder.mkdir()
        self.secret = self.outside / "secret.png"
        Image.new("RGB", (64, 48), (9, 9, 9)).save(self.secret)
        Image.new("RGB", (64, 48), (1, 2, 3)).save(self.root / "good.png")

    @contextmanager
    def nothing_outside_is_opened(self) -> Iterator[None]:
        self.watch.opened = set()
        try:
            yield
        finally:
            opened, self.watch.opened = self.watch.opened, None
        assert not [path for path in opened if Path(path).is_relative_to(self.outside)]
        assert not opened & {"/etc/passwd", "/dev/zero"}

    def persons(self, *paths: str) -> None:
        lines = [{"path": path, "box": BOX, "labels": ["joy"]} for path in paths]
        (self.root / "persons.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def coco(self, *paths: str) -> None:
        (self.root / "persons.json").write_text(json.dumps({
            "images": [{"id": i, "file_name": path} for i, path in enumerate(paths)],
            "annotations": [{"id": i, "image_id": i, "category_id": 0, "bbox": [1, 1, 8, 8]}
                            for i in range(len(paths))],
            "categories": [{"id": 0, "name": "joy"}],
        }))  # fmt: skip

    def rows(self, name="persons", **data: bool) -> dict[str, tuple[str, str]]:
        """Status and reason of each picture in the index, by path."""
        where = self.base / f"cache-{len(list(self.base.iterdir()))}"
        prepare(Data(name=name, root=self.root, **data), where)
        index = Index.read(where)
        assert index.person_status.tolist() == index.pictures["status"].to_pylist()
        columns = (index.pictures[one].to_pylist() for one in ("path", "status", "reason"))
        return {path: (status, reason) for path, status, reason in zip(*columns, strict=True)}


@pytest.fixture
def stranger(tmp_path, watch) -> Stranger:
    return Stranger(tmp_path, watch)


def test_the_watch_sees_what_is_opened(stranger):
    (stranger.root / "link").symlink_to(stranger.outside)
    with pytest.raises(AssertionError), stranger.nothing_outside_is_opened():
        images.header(stranger.root / "link" / "secret.png")
    with pytest.raises(AssertionError), stranger.nothing_outside_is_opened():
        os.listdir(stranger.root / "link")


# Paths


def leaving(outside: Path) -> list[str]:
    return [
        "../outside/secret.png",
        str(outside / "secret.png"),
        "..\\outside\\secret.png",
        "x/../../outside/secret.png",
        "./../outside/secret.png",
        "good.png/../../outside/secret.png",
        "good.png\0../outside/secret.png",
        "/etc/passwd",
        "//etc/passwd",
        "..",
        "/",
    ]


def test_paths_that_leave_the_root_are_faults_of_the_table(stranger):
    paths = leaving(stranger.outside)
    stranger.persons("good.png", *paths)
    with stranger.nothing_outside_is_opened(), pytest.raises(Faults) as refused:
        check(Data(name="persons", root=stranger.root))
    assert len(refused.value.faults) == len(paths)
    for line, fault in enumerate(refused.value.faults, 2):
        assert fault.startswith(f"persons.jsonl, line {line}: the path ")
        assert fault.endswith("is not below data.root")


def test_paths_that_leave_the_root_are_rows_of_coco(stranger):
    paths = leaving(stranger.outside)
    stranger.coco("good.png", *paths)
    with stranger.nothing_outside_is_opened():
        rows = stranger.rows("coco")
    assert rows.pop("good.png") == ("ok", "")
    assert set(rows) == {path.replace("\\", "/") for path in paths}
    assert set(rows.values()) == {
        ("unreadable", "the path is not below data.root: it is not opened")
    }


def test_a_drive_of_windows_is_a_folder_that_is_missing(stranger):
    stranger.persons("C:\\secret.png", "good.png")
    assert stranger.rows()["C:/secret.png"] == ("missing", "no such file")


# Links


def test_links_that_lead_out_are_not_followed(stranger):
    (stranger.root / "file.png").symlink_to(stranger.secret)
    (stranger.root / "near.png").symlink_to("../outside/secret.png")
    (stranger.root / "folder").symlink_to(stranger.outside)
    (stranger.root / "twice.png").symlink_to(stranger.root / "file.png")
    (stranger.root / "zero.png").symlink_to("/dev/zero")
    (stranger.root / "nothing.png").symlink_to(stranger.outside / "none.png")
    paths = ["file.png", "near.png", "folder/secret.png", "twice.png", "zero.png", "nothing.png"]
    for name in ("persons", "coco"):
        getattr(stranger, name)("good.png", *paths)
        with stranger.nothing_outside_is_opened():
            rows = stranger.rows(name)
        assert rows == {"good.png": ("ok", ""), **dict.fromkeys(paths, ("unreadable", LINK))}


@pytest.mark.parametrize("name", ["persons.jsonl", "labels.yaml"])
def test_tables_that_are_links_out_are_not_read(stranger, name):
    stranger.persons("good.png")
    held = (stranger.root / name).read_bytes() if name == "persons.jsonl" else b"joy: glad"
    (stranger.outside / name).write_bytes(held)
    (stranger.root / name).unlink(missing_ok=True)
    (stranger.root / name).symlink_to(stranger.outside / name)
    data = Data(name="persons", root=stranger.root)
    with (
        stranger.nothing_outside_is_opened(),
        pytest.raises(
            DataError, match=rf"{name} is a link that leads out of data\.root: it is not"
        ),
    ):
        check(data)
    assert check(data.model_copy(update={"follow_links": True})).persons


def test_links_are_followed_where_the_data_are_trusted(stranger):
    Image.new("RGB", (64, 48), (7, 7, 7)).save(stranger.outside / "other.png")
    (stranger.root / "file.png").symlink_to(stranger.secret)
    (stranger.root / "folder").symlink_to(stranger.outside)
    (stranger.root / "zero.png").symlink_to("/dev/zero")
    stranger.persons("file.png", "folder/other.png", "zero.png")
    assert stranger.rows(follow_links=True) == {
        "file.png": ("ok", ""),
        "folder/other.png": ("ok", ""),
        "zero.png": ("unreadable", "not a file"),
    }


def test_trust_does_not_let_paths_leave_the_root(stranger):
    stranger.coco("good.png", *leaving(stranger.outside))
    with stranger.nothing_outside_is_opened():
        rows = stranger.rows("coco", follow_links=True)
    assert [path for path, (status, _) in rows.items() if status == "ok"] == ["good.png"]


def test_links_inside_the_root_are_followed(stranger):
    (stranger.root / "again.png").symlink_to("good.png")
    stranger.persons("again.png")
    assert stranger.rows() == {"again.png": ("ok", "")}


def test_a_root_that_is_a_link_is_the_folder_it_leads_to(stranger):
    stranger.persons("good.png")
    (stranger.base / "link").symlink_to(stranger.root)
    stranger.root = stranger.base / "link"
    assert stranger.rows() == {"good.png": ("ok", "")}


@pytest.mark.parametrize("trusted", [False, True])
def test_links_in_a_circle_lead_nowhere(stranger, trusted):
    (stranger.root / "a.png").symlink_to("b.png")
    (stranger.root / "b.png").symlink_to("a.png")
    (stranger.root / "self").symlink_to("self")
    (stranger.root / "inner").symlink_to(".")
    stranger.persons("a.png", "self/a.png", "inner/inner/inner/good.png")
    for name in ("persons", "coco"):
        getattr(stranger, name)("a.png", "self/a.png", "inner/inner/good.png")
        rows = stranger.rows(name, follow_links=trusted)
        assert rows.pop("inner/inner/good.png") == ("ok", "")
        assert {status for status, _ in rows.values()} <= {"missing", "unreadable"}
        assert all(reason for _, reason in rows.values())


def test_folders_of_classes_that_are_links_are_not_entered(stranger):
    for name in ("joy", "fear"):
        (stranger.root / "train" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(stranger.root / "train" / name / f"{name}.png")
    (stranger.root / "train" / "awe").symlink_to(stranger.outside)
    (stranger.root / "train" / "joy" / "more").symlink_to(stranger.outside)
    (stranger.root / "train" / "joy" / "link.png").symlink_to(stranger.secret)
    with stranger.nothing_outside_is_opened():
        check(Data(name="folders", root=stranger.root))


# What is no file


def test_what_is_no_file_is_not_opened(stranger):
    """A pipe that nobody writes to would be waited for without end."""
    os.mkfifo(stranger.root / "pipe.png")
    (stranger.root / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(stranger.root)  # the name of a socket must be short
        try:
            listening.bind("socket.png")
        finally:
            os.chdir(here)
        names = ["pipe.png", "folder.png", "socket.png"]
        for name in ("persons", "coco"):
            getattr(stranger, name)("good.png", *names)
            rows = stranger.rows(name)
            assert rows == {
                "good.png": ("ok", ""),
                **dict.fromkeys(names, ("unreadable", "not a file")),
            }


def test_a_pipe_in_place_of_the_table_is_not_opened(stranger):
    os.mkfifo(stranger.root / "persons.csv")
    with pytest.raises(DataError, match=r"neither persons\.csv nor persons\.jsonl"):
        check(Data(name="persons", root=stranger.root))


def test_a_file_below_a_file_is_missing(stranger):
    stranger.persons("good.png/more.png")
    assert stranger.rows() == {"good.png/more.png": ("missing", "no such file")}


def test_a_file_of_any_size_is_not_read_whole(stranger):
    with open(stranger.root / "huge.png", "wb") as file:
        file.truncate(1 << 40)  # takes no room
    stranger.persons("huge.png", "good.png")
    status, reason = stranger.rows()["huge.png"]
    assert status == "unreadable" and "too many" in reason


def test_names_too_long_for_the_disk_are_rows(stranger):
    paths = ["n" * 300 + ".png", "d/" * 3000 + "a.png"]
    stranger.persons("good.png", *paths)
    rows = stranger.rows()
    assert rows["good.png"] == ("ok", "")
    assert all(rows[path][0] in ("missing", "unreadable") and rows[path][1] for path in paths)


# Much of it

LARGE = """
import resource, sys
from pathlib import Path
from extract.datasets.persons import Persons
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
records = list(Persons(Path(sys.argv[1])).records())
print(len(records), sum(len(one.persons) for one in records), peak() - before)
"""


def test_a_large_table_is_read_in_bounded_memory(stranger):
    """100,000 persons in 1,000 pictures; 5 kB each are plenty."""
    lines = [
        f"{i % 1000}.png,{i // 1000},{i // 1000},120,120,joy;fear,film {i % 1000 // 10},{i}"
        for i in range(100_000)
    ]
    (stranger.root / "persons.csv").write_text(
        "\n".join(["path,x1,y1,x2,y2,labels,group,id", *lines])
    )
    done = subprocess.run(
        [sys.executable, "-c", LARGE, stranger.root],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    pictures, persons, mebibytes = map(int, done.stdout.split())
    assert (pictures, persons) == (1_000, 100_000)
    assert mebibytes < 500
