"""A frozen CLIP text tower and its parts, for encoding prompts with learned context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gopro.clip.faster_layers.quick_gelu import fuse_quick_gelu
from gopro.clip.open_clip_internals import bound_cache, text_parts, token_ids
from gopro.clip.similarity import unit_length
from gopro.errors import InputError


class TextTower:
    """The frozen text tower of an open_clip model.

    Args:
        model: an open_clip model (typed Any, as a type checker knows no attribute of a Module).
        tokenizer: open_clip's SimpleTokenizer or HFTokenizer.

    Attributes:
        width: d, the size of a token embedding.
        context_length: the most tokens a prompt may have, SOS and EOT included.
        causal: true if a token attends only to those before it and the features are read at EOT.
        sos, eot, pad: ids of the tokens that the tokenizer puts before a text (None if it puts none), after it, and
            after EOT.
        to_features: maps the projected output [..., D] to unit features, as that of a `Backbone` does.

    Raises:
        InputError: the tower cannot take learned context (see `text_parts`); the tokenizer surrounds a text with tokens
            other than these.
    """

    def __init__(self, model: Any, tokenizer: Any):
        (
            self.blocks,
            self.token_embedding,
            self.positional_embedding,
            self.ln_final,
            self.projection,
            self.mask,
            self.pool,
            self.context_length,
        ) = text_parts(model)
        for block in self.blocks:
            fuse_quick_gelu(block)
        bound_cache(tokenizer)
        self.tokenizer: Any = tokenizer
        self.width: int = self.token_embedding.embedding_dim
        self.causal = self.mask is not None and self.pool in ("argmax", "eos")
        self.sos, self.eot, self.pad = self._special_tokens()
        self.to_features: Callable[[Tensor], Tensor] = unit_length

    @property
    def device(self) -> torch.device:
        return self.token_embedding.weight.device

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a text, without SOS and EOT."""
        return token_ids(self.tokenizer, text)

    def _special_tokens(self) -> tuple[int | None, int, int]:
        """Read SOS, EOT and padding off a tokenized text, as every family of tokenizers has its own."""
        text = self.tokens("a")
        row = self.tokenizer(["a"])[0].tolist()
        for sos in ([], row[:1]):
            eot, *padding = row[len(sos) + len(text) :]
            if row == [*sos, *text, eot, *padding] and len({*padding}) == 1:
                return (sos[0] if sos else None), eot, padding[0]
        raise InputError(
            f"the tokenizer {type(self.tokenizer).__name__} lays a text out as {row[:8]} ..., which is not supported; "
            "use another backbone"
        )

    def embed(self, text: str) -> Float[Tensor, "tokens width"]:
        """Return the token embeddings of a text, for example to initialise a learned context."""
        return self.token_embedding(torch.tensor(self.tokens(text), device=self.device, dtype=torch.long))

    def project(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... embed"]:
        """Return unit features (fp32) from the last layer's output at the token that is read."""
        hidden = self.ln_final(hidden)
        if isinstance(self.projection, nn.Linear):
            hidden = self.projection(hidden)
        elif self.projection is not None:
            hidden = hidden @ self.projection
        return self.to_features(hidden)
