"""A student so small that it learns in seconds, and photographs for it."""

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from train.uniemox import student as students
from train.uniemox.pictures import Pictures
from train.uniemox.settings import Pretrain
from train.uniemox.student import Student

SIZE, PATCH, D = 32, 8, 12
N = (SIZE // PATCH) ** 2


@pytest.fixture
def nano(monkeypatch):
    """`tiny` is 32 wide, and 2 layers with 2 heads."""
    monkeypatch.setitem(students.SIZES, "tiny", (32, 2, 2))


def settings(**more) -> Pretrain:
    given = {
        "encoder": "tiny",
        "size": SIZE,
        "patch": PATCH,
        "decoder": {"width": 16, "layers": 1, "heads": 2},
    }
    return Pretrain.model_validate(given | more)


def student(width: int | None = D, seed: int = 0, **more) -> Student:
    torch.manual_seed(seed)
    return Student.setup(settings(**more), width)


def pictures(count: int = 8, size: int = SIZE, patch: int = PATCH) -> Pictures:
    """Parts of photographs, each with a part of it as the person, and made-up teachers."""
    draw = torch.Generator().manual_seed(5)
    whole = photographs(2 * size)
    scenes, persons = [], []
    for n in range(count):
        photograph = whole[n % len(whole)]
        y, x = ((7 * n) % size, (11 * n) % size)
        scenes.append(photograph[:, y : y + size, x : x + size])
        small = photograph[:, y + size // 4 : y + size, x + size // 4 : x + size]
        persons.append(torch.nn.functional.interpolate(small[None].float(), size)[0].byte())
    described = torch.ones(count, dtype=torch.bool)
    described[1::4] = False
    return Pictures(
        scene=torch.stack(scenes),
        person=torch.stack(persons),
        noise=torch.rand((count, 2, (size // patch) ** 2), generator=draw),
        whole=torch.zeros(count, dtype=torch.bool),
        row=torch.arange(count),
        image=torch.randn((count, D), generator=draw) + 1,
        text=torch.randn((count, D), generator=draw) * described[:, None],
        described=described,
    )


@cache
def photographs(size: int) -> torch.Tensor:
    """Four of scikit-image, uint8 (4, 3, size, size)."""
    squares = [
        np.asarray(Image.fromarray(photo()).resize((size, size)))
        for photo in (data.astronaut, data.coffee, data.chelsea, data.rocket)
    ]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()
