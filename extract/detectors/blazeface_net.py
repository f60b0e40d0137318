"""BlazeFace, short range, as a plain network (Bazarevsky et al., 2019): 128 x 128 pixels in, one
box and one score for each of 896 anchors out. Built after the published file's own graph, from
which `extract.weights.convert` takes the weights.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Width of each block, and whether it halves the map: 64 cells a side at first, 8 at the end.
BLOCKS = (
    (24, False), (28, False), (32, True), (36, False), (42, False), (48, True), (56, False),
    (64, False), (72, False), (80, False), (88, False), (96, True), (96, False), (96, False),
    (96, False), (96, False),
)  # fmt: skip
FINE = 11  # blocks before the map of 16 x 16 cells is read; the rest end at 8 x 8
ANCHORS = (2, 6)  # a cell of the fine map, of the coarse map
NUMBERS = 16  # a box: centre, size and six key points


class Block(nn.Module):
    """A depthwise 3 x 3 and a pointwise convolution beside a shortcut that is pooled and padded
    with empty channels where the shape changes; ReLU on the sum."""

    def __init__(self, width: int, out: int, halve: bool):
        super().__init__()
        self.halve, self.more = halve, out - width
        self.depthwise = nn.Conv2d(
            width, width, 3, stride=2 if halve else 1, padding=0 if halve else 1, groups=width
        )
        self.pointwise = nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        # An even side under stride 2 gets its one row and column of padding at the far end.
        inside = F.pad(x, (0, 1, 0, 1)) if self.halve else x
        shortcut = F.max_pool2d(x, 2) if self.halve else x
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.more))
        return F.relu(shortcut + self.pointwise(self.depthwise(inside)))


class BlazeFaceNet(nn.Module):
    """(B, 3, 128, 128) RGB in [-1, 1] -> raw boxes (B, 896, 16), raw scores (B, 896, 1).

    The first 512 anchors are the 16 x 16 cells (2 each), the other 384 the 8 x 8 cells (6 each),
    row by row. A raw box is in pixels of the input, its centre relative to the anchor's; a score
    wants a sigmoid.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, BLOCKS[0][0], 5, stride=2)
        widths = [BLOCKS[0][0], *(width for width, _ in BLOCKS)]
        self.blocks = nn.ModuleList(
            Block(widths[i], out, halve) for i, (out, halve) in enumerate(BLOCKS)
        )
        read = (BLOCKS[FINE - 1][0], BLOCKS[-1][0])
        self.scores = nn.ModuleList(
            nn.Conv2d(width, n, 1) for width, n in zip(read, ANCHORS, strict=True)
        )
        self.boxes = nn.ModuleList(
            nn.Conv2d(width, n * NUMBERS, 1) for width, n in zip(read, ANCHORS, strict=True)
        )

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.stem(F.pad(pictures, (1, 2, 1, 2))))
        for block in self.blocks[:FINE]:
            x = block(x)
        fine = x
        for block in self.blocks[FINE:]:
            x = block(x)

        def rows(layers: nn.ModuleList, numbers: int) -> Tensor:
            maps = [layer(m) for layer, m in zip(layers, (fine, x), strict=True)]
            # channels last, then cell by cell and anchor by anchor
            return torch.cat(
                [m.permute(0, 2, 3, 1).reshape(len(m), -1, numbers) for m in maps], dim=1
            )

        return rows(self.boxes, NUMBERS), rows(self.scores, 1)
