"""Words to vectors by table: GloVe, word2vec, fastText, or a vocabulary of the user's own."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from cache.errors import SettingsError, WeightsError, first_line
from extract.backbones import backbone
from extract.networks import Network
from extract.weights import Weights
from extract.weights.untrained import SEED
from extract.weights.word_vectors import read_vectors

WIDTHS = {"glove-6b-50d": 50}  # of vocabularies that may be asked for untrained


@backbone(*WIDTHS)
class Words(Network):
    """List of words -> a float32 vector (W,) for each word that the vocabulary has, by word.

    A word is looked up as it is given, so in lower case where the vocabulary is. Of a word that
    stands there twice the first vector counts. The file is `extract.weights.word_vectors`'s.
    Untrained, every word is known: its vector is normal noise seeded by the word.
    """

    kind = "words"
    any_name = True

    @classmethod
    def rule(cls, weights: Weights) -> dict[str, Any]:
        return {} if weights.trained else {"vectors": "seeded by the word"}

    def __init__(self, weights: Weights, device: str = "cpu"):
        super().__init__(weights, device)
        if weights.trained:
            self.rows, self.vectors = _table(weights)
            self.width = self.vectors.shape[1]
        elif self.name.lower() in WIDTHS:
            self.width = WIDTHS[self.name.lower()]
        else:
            raise SettingsError(
                f"the width of {self.name!r} is not known here, so it cannot run untrained: set "
                f"views.words.network to {', '.join(WIDTHS)}"
            )

    def __call__(self, words: list[str]) -> dict[str, np.ndarray]:
        if not self.weights.trained:
            return {word: self._noise(word) for word in words}
        return {word: self.vectors[self.rows[word]] for word in words if word in self.rows}

    def _noise(self, word: str) -> np.ndarray:
        import torch

        generator = torch.Generator().manual_seed(SEED + zlib.crc32(word.encode()))
        return torch.randn(self.width, generator=generator).numpy()


def _table(weights: Weights) -> tuple[dict[str, int], np.ndarray]:
    """The row of each word, and the vectors (N,W)."""
    try:
        if weights.path is None:
            raise ValueError("no file")
        words, vectors = read_vectors(weights.path)
    except Exception as error:  # safetensors raises several kinds for a wrong file
        raise WeightsError(
            f"{weights.path} does not hold word vectors of {weights.network}: "
            f"{first_line(error)}; see weights.folder and views.words.network"
        ) from error
    return {word: row for row, word in reversed(list(enumerate(words)))}, vectors
