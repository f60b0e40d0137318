"""Sheets of reconstructions, by their pixels."""

import numpy as np
import pytest

from tests.train.uniemox.small import SIZE, nano, pictures, student
from train.uniemox.grids import CAPTION, GAP, SMALLEST, grid

__all__ = ["nano"]
pytestmark = pytest.mark.usefixtures("nano")

TIMES = 4  # 32 pixels become 128


def squares(sheet: np.ndarray, rows: int, side: int) -> np.ndarray:
    """(rows, columns, side, side, 3), as they lie on the sheet."""
    columns = (sheet.shape[1] - GAP) // (side + GAP)
    step = side + GAP
    return np.stack(
        [
            [sheet[CAPTION + r * step :, GAP + c * step :][:side, :side] for c in range(columns)]
            for r in range(rows)
        ]
    )


def test_rows_are_pictures_and_columns_what_each_stream_shows_hides_and_reconstructs():
    model, some = student(), pictures(3)
    shown = model.reconstruct(some)
    side = SIZE * TIMES
    assert side - SIZE < SMALLEST <= side
    sheet = np.asarray(grid(model, some))
    assert sheet.shape == (CAPTION + 3 * (side + GAP), GAP + 6 * (side + GAP), 3)
    found = squares(sheet, 3, side)
    expected = [
        shown[stream][name]
        for stream in ("scene", "person")
        for name in ("original", "masked", "reconstructed")
    ]
    for column, pixels in enumerate(expected):
        for row in range(3):
            square = pixels[row].permute(1, 2, 0).numpy()
            larger = np.kron(square, np.ones((TIMES, TIMES, 1), np.uint8))
            assert np.array_equal(found[row, column], larger), (row, column)


def test_every_column_has_a_caption_above_it_and_white_between():
    model, some = student(), pictures(2)
    sheet = np.asarray(grid(model, some))
    step = SIZE * TIMES + GAP
    for column in range(6):
        above = sheet[:CAPTION, GAP + column * step : (column + 1) * step]
        assert (above < 200).any(), "no caption"
        assert (sheet[:, column * step : column * step + GAP] == 255).all()
    assert (sheet[CAPTION + step - GAP : CAPTION + step] == 255).all()


def test_streams_and_reconstructions_that_are_not_there_have_no_column():
    some = pictures(2)
    for without, columns in ((["person"], 3), (["pixels"], 4), (["pixels", "person"], 2)):
        sheet = grid(student(without=without), some)
        assert sheet.width == GAP + columns * (SIZE * TIMES + GAP)


def test_large_pictures_keep_their_size():
    sheet = grid(student(size=128, patch=32), pictures(1, size=128, patch=32))
    assert sheet.size == (GAP + 6 * (128 + GAP), CAPTION + 128 + GAP)
