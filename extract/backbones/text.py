"""Sentences to vectors with any transformers encoder: BERT, MiniLM, MPNet, E5, T5's encoder ..."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import SettingsError, WeightsError, first_line
from extract.backbones import backbone
from extract.loading import config_in, load_transformer, quiet_transformers
from extract.networks import Network
from extract.weights import Weights
from extract.weights.untrained import seeded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig


LONGEST = 512  # tokens; what most encoders can take, longer text is cut
COUNTED = 1024  # sentences whose tokens are counted together

VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)

# Shapes of BERT encoders that may be asked for untrained: layers, width, heads, feed-forward.
BERTS = {
    "bert-base-uncased": (12, 768, 12, 3072),
    "bert-large-uncased": (24, 1024, 16, 4096),
    "sentence-transformers/all-minilm-l6-v2": (6, 384, 12, 1536),
}

FAMILIES = ("*bert*", "*minilm*", "*mpnet*", "*gte-*", "*e5-*", "*bge-*", "*sentence-t5*")


@backbone(*BERTS, *FAMILIES)
class Text(Network):
    """List of B sentences -> float32 (B,W).

    `pooling` "mean" averages the last layer over the real tokens (attention mask), special tokens
    included, as sentence transformers do; "cls" takes the first token.
    """

    kind = "text"
    any_name = True

    @classmethod
    def rule(cls, weights: Weights) -> dict[str, Any]:
        return {"longest": LONGEST} | ({} if weights.trained else {"tokens": "hashed words"})

    def __init__(self, weights: Weights, device: str = "cpu"):
        import torch
        from transformers import AutoModel

        super().__init__(weights, device)
        if weights.trained:
            model = load_transformer(AutoModel, weights, ("pooler.",), "views.labels.network")
            tokenizer = tokenizer_in(weights.path)
        else:
            config = config_of(self.name)
            tokenizer = HashedWords(config.vocab_size)
            with seeded():
                model = AutoModel.from_config(config, dtype=torch.float32)
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        self.tokenizer = tokenizer
        self.longest = min(
            LONGEST,
            tokenizer.model_max_length,
            getattr(model.config, "max_position_embeddings", LONGEST),
        )
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.width = int(model.config.hidden_size)

    def __call__(self, sentences: list[str], pooling: str = "mean") -> torch.Tensor:
        import torch

        if pooling not in ("mean", "cls"):
            raise SettingsError(f"views.labels.pooling is {pooling!r}, not 'mean' or 'cls'")
        parts = self.batched(list(sentences), lambda some: self._features(some, pooling))
        return torch.cat(parts) if parts else torch.zeros((0, self.width), device=self.device)

    def lengths(self, sentences: list[str]) -> list[int]:
        """How many tokens each sentence has, before it is cut; special ones are counted."""
        return token_counts(self.tokenizer, sentences)

    def _features(self, sentences: list[str], pooling: str) -> torch.Tensor:
        tokens = self.tokenizer(
            sentences,
            padding=True,
            truncation=True,
            max_length=self.longest,
            return_tensors="pt",
        )
        tokens = {name: value.to(self.device) for name, value in tokens.items()}
        with self.arithmetic():
            hidden = self.model(**tokens).last_hidden_state.float()
            return pool(hidden, tokens["attention_mask"], pooling)


def token_counts(tokenizer: Any, sentences: list[str]) -> list[int]:
    """How many tokens each sentence has, special ones included, and nothing cut."""
    counts: list[int] = []
    for start in range(0, len(sentences), COUNTED):
        with quiet_transformers():  # which warns that they are too long, the very question
            tokens = tokenizer(
                list(sentences[start : start + COUNTED]),
                padding=True,
                truncation=False,
                return_attention_mask=True,
                return_tensors="pt",
            )
        counts += tokens["attention_mask"].sum(dim=1).tolist()
    return counts


def tokenizer_in(folder: Path | None) -> Any:
    """The tokenizer of a folder. transformers makes an empty one, to which every word is unknown,
    where the vocabulary is missing: that raises WeightsError here."""
    from transformers import AutoTokenizer

    if folder is None or not any((Path(folder) / name).exists() for name in VOCABULARIES):
        raise WeightsError(
            f"{folder} has no tokenizer (one of {', '.join(VOCABULARIES)}); see weights.folder "
            "and views.labels.network"
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise WeightsError(
            f"{folder} has no tokenizer that transformers can read: {first_line(error)}; see "
            "weights.folder and views.labels.network"
        ) from error


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """(B,T,W) and its attention mask (B,T) -> (B,W); padding never counts."""
    import torch

    if pooling == "cls":
        first = mask.to(torch.int32).argmax(dim=1)  # not 0 where a tokenizer pads on the left
        return hidden[torch.arange(len(hidden), device=hidden.device), first]
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def config_of(name: str) -> PreTrainedConfig:
    """The shape of an untrained encoder: of a known name, or from a folder's `config.json`."""
    from transformers import BertConfig

    if name.lower() not in BERTS:
        return config_in(name, "views.labels.network", BERTS)
    layers, width, heads, inner = BERTS[name.lower()]
    return BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
    )


class HashedWords:
    """Tokens for an untrained encoder, which has no vocabulary: a word's number is its CRC-32.

    Answers like a transformers tokenizer for a list of sentences.
    """

    model_max_length = LONGEST
    PAD, FIRST, LAST, RESERVED = 0, 1, 2, 3

    def __init__(self, vocabulary: int):
        self.vocabulary = vocabulary

    def __call__(
        self,
        sentences: list[str],
        padding: bool | str = True,
        truncation: bool = True,
        max_length: int = LONGEST,
        **_: Any,
    ) -> dict[str, torch.Tensor]:
        import torch

        kept = max_length - 2 if truncation else None
        rows = [[self.FIRST, *map(self.number, words(s)[:kept]), self.LAST] for s in sentences]
        width = max_length if padding == "max_length" else max(map(len, rows))
        ids = torch.tensor([row + [self.PAD] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": mask}

    def number(self, word: str) -> int:
        return self.RESERVED + zlib.crc32(word.encode()) % (self.vocabulary - self.RESERVED)


def words(sentence: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", sentence.lower())
