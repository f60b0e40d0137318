"""WESAD: stretches, windows, channels in seconds and units, and files that cannot be read.

Oracle: the arrays that were written into the made files, cut by hand.
"""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from cache.errors import DataError
from extract.datasets import get_dataset, open_dataset
from extract.datasets.wesad import CHANNELS
from extract.images import PictureError
from extract.signals.features import MEASURES
from tests.extract.datasets.made import prepared
from tests.extract.signals.made_wesad import BETWEEN, ORDER, PANAS, make, oracle, questionnaire

SECONDS = 70
NAMES = ("1-baseline", "2-stress", "3-meditation", "4-amusement", "5-meditation")
PATHS = [f"S2/S2.pkl#{name}" for name in NAMES]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("wesad"), (2,), SECONDS)


@pytest.fixture
def root(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "data")


def opened(root: Path, name: str = "wesad", window: tuple[float, float] = (60.0, 30.0)):
    return open_dataset(name, root, window=window)


def held(root: Path) -> dict:
    return oracle((root / "S2/S2.pkl").read_bytes())


def rewrite(root: Path, change, name: str = "S2") -> None:
    """The pickle of a subject with `change` done to it."""
    value = held(root)
    change(value)
    (root / name).mkdir(exist_ok=True)
    (root / name / f"{name}.pkl").write_bytes(pickle.dumps(value, 4))


# Records


def test_each_label_that_lasts_is_a_stretch(made):
    reader = opened(made)
    records = list(reader.records())
    assert [record.path for record in records] == PATHS
    assert {(r.width, r.height, r.group, r.split) for r in records} == {(SECONDS, 1, "S2", "")}
    felt = [reader.labels[int(r.persons[0].labels.argmax())] for r in records]
    assert felt == [name.split("-")[1] for name in NAMES]
    assert all(r.persons[0].labels.sum() == 1 for r in records)
    assert (reader.kind, reader.splits) == ("single", ())


def test_what_is_no_condition_is_counted(root):
    def change(value):
        label = value["label"].copy()
        label[:700], label[700:1400] = 5, 7
        value["label"] = label

    rewrite(root, change)
    reader = opened(root)
    assert len(list(reader.records())) == 5
    told = {value: f"stretches with label {value}, which is no condition" for value in (0, 5, 6, 7)}
    assert {v: reader.counts[name] for v, name in told.items()} == {0: 6, 5: 1, 6: 1, 7: 1}


@pytest.mark.parametrize(
    ("window", "begins"),
    [
        ((60.0, 30.0), [0]),
        ((60.0, 10.0), [0, 10]),
        ((30.0, 20.0), [0, 20, 40]),
        ((70.0, 1.0), [0]),
        ((69.9, 0.1), [0, 0.1]),
        ((70.1, 1.0), []),
    ],
)
def test_windows_lie_wholly_in_their_stretch(made, window, begins):
    reader = opened(made, window=window)
    for record in reader.records():
        boxes = [person.box for person in record.persons]
        assert boxes == [pytest.approx((at, 0, at + window[0], 1)) for at in begins]
    short = reader.counts["stretches shorter than a window (data.window.seconds)"]
    assert short == (0 if begins else 5)


def test_subjects_come_in_the_order_of_their_numbers(made, tmp_path):
    for name in ("S10", "S3", "S2"):
        shutil.copytree(made / "S2", tmp_path / "WESAD" / name)
        (tmp_path / "WESAD" / name / "S2.pkl").rename(tmp_path / "WESAD" / name / f"{name}.pkl")
    (tmp_path / "WESAD/S4").mkdir()
    (tmp_path / "WESAD/S4/S5.pkl").write_bytes(b"another's")
    found = [record.path for record in opened(tmp_path).records()]
    assert [path.split("#")[0] for path in found[::5]] == [
        f"WESAD/{name}/{name}.pkl" for name in ("S2", "S3", "S10")
    ]


# Channels


def test_channels_are_those_of_the_stretch(made):
    value, reader = held(made), get_dataset("wesad")
    data = (made / "S2/S2.pkl").read_bytes()
    for number, name in enumerate(NAMES):
        start = BETWEEN + number * (SECONDS + BETWEEN)
        channels = reader.decode(data, name)
        assert channels.keys() == CHANNELS.keys()
        for channel, (device, key, width, rate, _) in CHANNELS.items():
            wanted = value["signal"][device][key]
            wanted = wanted[int(start * rate) : int((start + SECONDS) * rate)]
            wanted = wanted / 64 if channel == "wrist_motion" else wanted
            found = channels[channel]
            assert (found.rate, found.values.shape) == (rate, (SECONDS * rate, width))
            assert found.values.dtype == np.float64
            assert (found.values == wanted).all()


def test_a_stretch_that_begins_between_samples_is_cut_at_the_nearest(root):
    """Baseline begins 101 samples late: at 5.144 s, which is 20.6 samples of 4 Hz."""

    def change(value):
        value["label"] = value["label"].copy()
        value["label"][BETWEEN * 700 : BETWEEN * 700 + 101] = 0

    rewrite(root, change)
    value, data = held(root), (root / "S2/S2.pkl").read_bytes()
    channels = get_dataset("wesad").decode(data, "1-baseline")
    assert len(channels["ecg"].values) == SECONDS * 700 - 101
    temperature = value["signal"]["wrist"]["TEMP"]
    assert (channels["wrist_temp"].values == temperature[21 : 4 * (BETWEEN + SECONDS)]).all()
    record = next(iter(opened(root).records()))
    assert (record.width, record.persons[0].box) == (SECONDS, (0, 0, 60, 1))


@pytest.mark.parametrize("protocol", [0, 2])
def test_both_protocols_of_python_2_are_read(made, tmp_path, protocol):
    other = make(tmp_path, (2,), SECONDS, protocol=protocol)
    a, b = ((one / "S2/S2.pkl").read_bytes() for one in (made, other))
    assert (a == b) == (protocol == 2)
    decode = get_dataset("wesad").decode
    for channel, found in decode(b, "2-stress").items():
        assert (found.values == decode(a, "2-stress")[channel].values).all()


def test_every_modality_can_be_measured(made):
    reader = get_dataset("wesad")
    channels = reader.decode((made / "S2/S2.pkl").read_bytes(), "2-stress")
    rates = {name: channel.rate for name, channel in channels.items()}
    seen = {}
    for name, modality in reader.modalities.items():
        window = {one: channels[one].between(0, 60) for one in modality.channels}
        features, reason = MEASURES[modality.measure](window, rates)
        assert reason == ""
        names = MEASURES[modality.measure].names(modality.columns)
        seen[name] = dict(zip(names, features, strict=True))
        assert modality.decoder == "wesad"
    beats = next(heart for _, what, heart, _ in ORDER if what == "TSST")
    assert seen["ecg"]["ecg_heart_rate_mean"] == pytest.approx(beats, rel=0.02)
    assert seen["bvp"]["bvp_rr_mean"] == pytest.approx(60_000 / beats, rel=0.02)
    assert seen["resp"]["resp_rate_mean"] == pytest.approx(beats / 5, rel=0.02)
    assert seen["wrist_motion"]["wrist_motion_x_mean"] == pytest.approx(60 / 64, abs=0.02)
    roles = {name: modality.role for name, modality in reader.modalities.items()}
    moving = {name for name, role in roles.items() if role == "behavioural"}
    assert moving == {"chest_motion", "wrist_motion"}
    assert len(roles) == 10


# In an index


def test_a_subject_that_breaks_and_is_mended_has_the_rows_that_it_had(root, tmp_path):
    rewrite(root, lambda value: value.update(subject="S3"), "S3")  # other bytes
    data = (root / "S3/S3.pkl").read_bytes()
    cache = tmp_path / "cache"
    _, before = prepared("wesad", root, cache)
    assert before.person_status.tolist() == ["ok"] * 10
    assert before.modalities.keys() == get_dataset("wesad").modalities.keys()
    (root / "S3/S3.pkl").write_bytes(data[:1000])
    report, broken = prepared("wesad", root, cache)
    assert (broken.person_status == "ok").sum() == 5
    assert broken.person_status[-1] == "unreadable"
    assert report.oddities["subjects that cannot be read"] == 1
    (root / "S3/S3.pkl").write_bytes(data)
    _, mended = prepared("wesad", root, cache)
    assert mended.wanted("persons").tolist() == list(range(10))
    assert mended.ids("persons")[:10] == before.ids("persons")


# What cannot be read


def without(device: str, channel: str):
    return lambda value: value["signal"][device].pop(channel)


def put(device: str, channel: str, array):
    return lambda value: value["signal"][device].update({channel: array})


FAULTS = {
    "no ECG": (without("chest", "ECG"), r"no channel signal\.chest\.ECG"),
    "no BVP": (without("wrist", "BVP"), r"no channel signal\.wrist\.BVP"),
    "no wrist": (lambda value: value["signal"].pop("wrist"), r"no channel signal\.wrist\."),
    "signal is a list": (lambda value: value.update(signal=[1]), r"no channel signal\.chest"),
    "no label": (lambda value: value.pop("label"), "no dict of signal, label"),
    "label of text": (lambda value: value.update(label=np.array(["a"])), "label is no array"),
    "label 9": (lambda value: value.update(label=np.full(700, 9)), "label has 9"),
    "label 1.5": (lambda value: value.update(label=np.full(700, 1.5)), "label has 1.5"),
    "label NaN": (lambda value: value.update(label=np.full(700, np.nan)), "label has nan"),
    "no samples": (lambda value: value.update(label=np.zeros(0)), "label is no array"),
    "short": (put("chest", "EDA", np.zeros((700, 1))), r"signal\.chest\.EDA lasts 1\.0 s"),
    "two axes": (put("wrist", "ACC", np.zeros((14000, 2))), r"signal\.wrist\.ACC is \(14000, 2\)"),
    "text": (put("wrist", "EDA", np.array(["a"])), r"signal\.wrist\.EDA is no array of numbers"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_subject_in_another_form_does_not_lose_the_others(root, name):
    change, reason = FAULTS[name]
    rewrite(root, change, "S3")
    reader = opened(root)
    *others, last = reader.records()
    assert [record.path for record in others] == PATHS
    assert (last.path, last.group) == ("S3/S3.pkl#0-unreadable", "S3")
    person = last.persons[0]
    assert (person.status, person.annotators, person.labels.any()) == ("unreadable", 0, False)
    assert reader.counts["subjects that cannot be read"] == 1
    with pytest.raises(PictureError, match=reason) as refused:
        reader.decode((root / "S3/S3.pkl").read_bytes(), "1-baseline")
    assert person.reason == refused.value.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no pickle"),
        (b"cposix\nsystem\n(S'touch here'\ntR.", "asks for posix.system: it is not opened"),
        (b"\x80\x02]q\x00.", "no dict of signal"),
    ],
)
def test_pickles_that_are_refused_say_why(root, data, reason):
    (root / "S3").mkdir()
    (root / "S3/S3.pkl").write_bytes(data)
    *others, last = opened(root).records()
    assert len(others) == 5
    assert reason in last.persons[0].reason
    assert last.persons[0].status == "unreadable"


def test_a_link_out_of_the_root_is_not_read(root, made):
    (root / "S3").mkdir()
    (root / "S3/S3.pkl").symlink_to(made / "S2/S2.pkl")
    *_, last = opened(root).records()
    assert "data.follow_links" in last.persons[0].reason
    assert len(list(open_dataset("wesad", root, follow_links=True).records())) == 10


def test_where_no_subject_can_be_read_the_set_is_refused(root):
    (root / "S2/S2.pkl").write_bytes(b"no pickle")
    with pytest.raises(DataError, match=r"no subject of WESAD can be read: .*S2\.pkl: "):
        list(opened(root).records())


def test_a_folder_that_is_not_wesad_is_refused(tmp_path):
    (tmp_path / "S2").mkdir()
    with pytest.raises(DataError, match="set data.root to the folder of WESAD"):
        opened(tmp_path)


def test_a_stretch_that_the_file_has_not_is_refused(made):
    with pytest.raises(PictureError, match="no stretch '6-baseline'"):
        get_dataset("wesad").decode((made / "S2/S2.pkl").read_bytes(), "6-baseline")


# By questionnaire


def soft(root: Path) -> list[tuple[str, np.ndarray, str]]:
    reader = opened(root, "wesad_panas")
    return [(r.path, r.persons[0].labels, r.persons[0].reason) for r in reader.records()]


def answers(what: str) -> np.ndarray:
    """Of the 24 items: sad is the last one, angry and irritated stand before it after TSST."""
    scores = PANAS[what]
    return np.array([*scores[:23], scores[-1]], float)


def test_windows_have_the_shares_of_their_answers(made):
    reader = opened(made, "wesad_panas")
    assert (reader.kind, len(reader.labels), reader.labels[-1]) == ("distribution", 24, "sad")
    found = soft(made)
    assert [path for path, _, _ in found] == PATHS
    for (_, labels, reason), (_, what, _, _) in zip(found, ORDER, strict=True):
        assert labels == pytest.approx(answers(what) / answers(what).sum())
        assert reason == ""
    assert answers("TSST")[-1] == 1 and PANAS["TSST"][23:25] == (5, 4)
    assert reader.modalities == get_dataset("wesad").modalities


def quest(root: Path, text: str) -> None:
    (root / "S2/S2_quest.csv").write_text(text)


def test_conditions_are_found_by_their_order(root):
    """Subjects with the film first, and with the second meditation first, as in the real set."""
    rewrite(root, lambda value: value.update(label=np.where(
        value["label"] == 2, 3, np.where(value["label"] == 3, 2, value["label"]))))  # fmt: skip
    order = ("Base", "Fun", "Medi 2", "TSST", "Medi 1")
    quest(root, questionnaire("S2", order).replace("# Subj;", "# Subj:;"))
    for (_, labels, _), what in zip(soft(root), order, strict=True):
        assert labels == pytest.approx(answers(what) / answers(what).sum())


def test_a_stretch_in_two_parts_has_the_answers_of_both(root):
    def change(value):
        value["label"] = value["label"].copy()
        value["label"][BETWEEN * 700 + 62 * 700] = 0

    rewrite(root, change)
    found = soft_of_all(root)
    assert len(found) == 6
    assert found[0][1].tolist() == found[1][1].tolist() != found[2][1].tolist()


def soft_of_all(root: Path):
    reader = opened(root, "wesad_panas", (5.0, 60.0))
    return [(r.path, r.persons[0].labels) for r in reader.records()]


def test_an_item_without_an_answer_leaves_its_condition_unlabelled(root):
    """As of one condition of S5."""
    text = questionnaire("S2")
    line = ";".join(map(str, PANAS["Medi 1"]))
    assert line in text
    items = line.split(";")
    items[15] = "Nan"
    quest(root, text.replace(line, ";".join(items)))
    reader = opened(root, "wesad_panas")
    people = [record.persons[0] for record in reader.records()]
    assert [one.status for one in people] == ["ok", "ok", "unlabelled", "ok", "ok"]
    assert people[2].reason == "no answer for nervous"
    assert (people[2].annotators, people[2].labels.any()) == (0, False)
    assert reader.counts["conditions with an item that was not answered"] == 1


def test_answers_that_do_not_fit_leave_the_subject_unlabelled(root):
    quest(root, questionnaire("S2", ("Base", "Fun", "Medi 1", "TSST", "Medi 2")))
    reasons = {reason for _, _, reason in soft(root)}
    assert reasons == {
        "S2_quest.csv has baseline, amusement, meditation, stress, meditation, the signals "
        "baseline, stress, meditation, amusement, meditation"
    }
    (root / "S2/S2_quest.csv").unlink()
    assert {reason for _, _, reason in soft(root)} == {"there is no S2_quest.csv"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("# PANAS;1;1;3;", "# PANAS;1;1;9;", "line 6 has the answer '9', which is none of 1 to 5"),
        ("# PANAS;1;1;3;", "# PANAS;1;1;much;", "line 6 has the answer 'much'"),
        ("# PANAS;1;1;3;", "# PANAS;1;1;2.5;", "line 6 has the answer '2.5'"),
        ("# PANAS;1;1;3;", "# PANAS;1;3;", "line 6 has 23 answers, not 24 or 26"),
        ("# PANAS;1;1;3;", "# STAI;1;1;3;", "4 lines of PANAS for 5 conditions"),
        ("# ORDER", "# ORDERS", "5 lines of PANAS for 0 conditions"),
    ],
)
def test_a_questionnaire_in_another_form_is_refused_with_its_line(root, old, new, reason):
    text = questionnaire("S2")
    assert old in text
    quest(root, text.replace(old, new, 1))
    with pytest.raises(DataError, match=f"S2_quest.csv.*{reason}"):
        soft(root)
