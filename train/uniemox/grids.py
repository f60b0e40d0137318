"""Pictures of what the student sees and makes up."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from train.uniemox.pictures import Pictures
from train.uniemox.student import Student

SMALLEST = 112  # side of a square in pixels, below which it is shown larger
GAP, CAPTION, LETTERS = 4, 18, 12  # pixels
PAPER, INK = (255, 255, 255), (60, 60, 60)
COLUMNS = {"original": None, "masked": "left visible", "reconstructed": "reconstructed"}


def grid(student: Student, pictures: Pictures) -> Image.Image:
    """A row a picture, and for each stream what it shows, what is left of it when patches are
    hidden, and what the student makes of it (see `Student.reconstruct`). Without a decoder the last
    is left out. Pixels stay squares where small pictures are shown larger."""
    columns = [
        (COLUMNS[name] or stream, squares)
        for stream, shown in student.reconstruct(pictures).items()
        for name, squares in shown.items()
    ]
    side = pictures.scene.shape[-1]
    times = -(-SMALLEST // side)
    step = side * times + GAP
    sheet = Image.new("RGB", (len(columns) * step + GAP, len(pictures) * step + CAPTION), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(LETTERS)
    for column, (caption, squares) in enumerate(columns):
        left = GAP + column * step
        draw.text((left, 2), caption, INK, font)
        for row, square in enumerate(squares.permute(0, 2, 3, 1).cpu().numpy()):
            larger = np.repeat(np.repeat(square, times, axis=0), times, axis=1)
            sheet.paste(Image.fromarray(larger), (left, CAPTION + row * step))
    return sheet
