"""What a view holds, read by plain Zarr, dask, xarray and torch: each equals `StoredView.read`."""

import dask.array
import numpy as np
import pytest
import torch
import xarray
import zarr

from cache.spec import ArraySpec, Row, ViewSpec
from cache.store import StoredView, open_view
from cache.writer import ViewWriter

ROWS, SHARD, K, WIDTH = 53, 16, 3, 7  # the last shard and its last chunk are not full
ARRAYS = {
    "features": ArraySpec((K, WIDTH), dims=("object", "feature")),
    "box": ArraySpec((K, 4), "float32", dims=("object", "side")),
    "label": ArraySpec((K,), "int16", -1, dims=("object",)),
    "count": ArraySpec((), "int16"),
}


@pytest.fixture(params=["none", "zstd"])
def view(tmp_path, request) -> StoredView:
    spec = ViewSpec("objects", "persons", ARRAYS, {"made": 1}, facts={"classes": ["cup"]})
    writer = ViewWriter(tmp_path, spec, [str(n) for n in range(ROWS)], SHARD, request.param)
    rows = [row for row in range(ROWS) if row not in (5, *range(16, 32))]  # a shard is missing
    writer.expect(rows)
    rng = np.random.default_rng(0)
    for row in rows:
        values = {
            "features": rng.normal(size=(K, WIDTH)),
            "box": rng.uniform(size=(K, 4)),
            "label": rng.integers(0, 9, K),
            "count": K,
        }
        # A failed row leaves the fill values, the class -1 among them.
        writer.put(row, Row("ok", values) if row % 10 else Row("unreadable", reason="made so"))
    writer.close()
    return open_view(tmp_path, "objects")


def same(got, view: StoredView, name: str) -> None:
    expected = view.read(name)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def test_the_view_holds_what_the_comparisons_need(view):
    assert view.done.sum() == ROWS - 17 and view.read().any()
    assert (view.read("label")[[0, 5, 20]] == -1).all() and (view.read("label")[1] >= 0).all()


@pytest.mark.parametrize("name", ARRAYS)
def test_plain_zarr(view, name):
    same(zarr.open_array(view.path / name, mode="r")[:], view, name)
    same(zarr.open_group(view.path, mode="r")[name][:], view, name)
    same(view.arrays[name][:], view, name)


@pytest.mark.parametrize("name", ARRAYS)
def test_dask_a_shard_at_a_time(view, name):
    stored = view.arrays[name]
    lazy = dask.array.from_zarr(stored, chunks=stored.shards)
    assert lazy.chunks[0] == (16, 16, 16, 5)
    same(lazy.compute(), view, name)
    same(dask.array.from_array(stored, chunks=stored.shards).compute(), view, name)
    same(dask.array.from_zarr(str(view.path / name)).compute(), view, name)


def test_dask_computes_over_the_rows(view):
    lazy = dask.array.from_zarr(view.arrays["box"], chunks=view.arrays["box"].shards)
    np.testing.assert_allclose(lazy.mean(0).compute(), view.read("box").mean(0), rtol=1e-6)


def test_xarray(view, recwarn):
    data = xarray.open_zarr(view.path, consolidated=False, zarr_format=3, mask_and_scale=False)
    assert set(data.data_vars) == {*ARRAYS, "status"}
    assert data.features.dims == ("person", "object", "feature")
    assert data.box.dims == ("person", "object", "side") and data.label.dims == ("person", "object")
    for name in ARRAYS:
        same(data[name].values, view, name)
    usable = data.status.values == 1
    same(data.features.isel(person=usable, object=0).values, _First(view, usable), "features")
    assert data.attrs["emocache"]["key"] == view.key
    assert not [str(one.message) for one in recwarn if "not recognized" in str(one.message)]


class _First:
    """The first object of some rows of a view."""

    def __init__(self, view: StoredView, rows: np.ndarray):
        self.view, self.rows = view, rows

    def read(self, name: str) -> np.ndarray:
        return self.view.read(name)[self.rows][:, 0]


@pytest.mark.parametrize("name", ARRAYS)
def test_torch_shares_the_memory(view, name):
    values = view.read(name)
    tensor = torch.from_numpy(values)
    same(tensor.numpy(), view, name)
    values[...] = 1
    assert (tensor == 1).all()
