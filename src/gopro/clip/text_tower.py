"""A frozen CLIP text tower, opened up: its tokens, its embeddings and its parts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip import SimpleTokenizer
from torch import Tensor, nn

from gopro.clip.quick_gelu import fuse_quick_gelu
from gopro.errors import InputError

WORDS = 50_000
"""Words that a tokenizer keeps."""


class Words(dict[str, str]):
    """Words in pieces, the first `WORDS` that were met. Open_clip's tokenizer would keep every word it ever meets, and
    a server meets whatever it is asked about."""

    def __setitem__(self, word: str, pieces: str) -> None:
        if len(self) < WORDS:
            super().__setitem__(word, pieces)


class TextTower:
    """The text side of an open_clip model, frozen.

    Args:
        model: an open_clip model (typed Any: of a Module, a type checker knows no attribute).
        tokenizer: open_clip's SimpleTokenizer or HFTokenizer.

    Attributes:
        width: d, size of a token embedding.
        context_length: most tokens a prompt may have, SOS and EOT included.
        causal: whether a token sees only what stands before it and the tower is read at EOT.
        sos, eot, pad: the tokens that the tokenizer puts before a text (None: it puts none), behind it, and behind EOT.

    Raises:
        InputError: the model's text side is of a kind whose embeddings cannot be reached (a Hugging Face encoder)
            or that reads from an appended class token (CoCa); the tokenizer surrounds a text with something else.
    """

    def __init__(self, model: Any, tokenizer: Any):
        root = model.text if hasattr(model, "text") else model
        if not hasattr(root, "token_embedding") or getattr(root, "cls_emb", None) is not None:
            raise InputError(
                f"the text tower {type(root).__name__} cannot take learned context; "
                "use a CLIP or SigLIP model of open_clip"
            )
        fuse_quick_gelu(root.transformer)
        if isinstance(tokenizer, SimpleTokenizer):
            tokenizer.cache = Words(tokenizer.cache)
        self.tokenizer: Any = tokenizer
        self.blocks: list[Any] = list(root.transformer.resblocks)
        self.token_embedding: nn.Embedding = root.token_embedding
        self.positional_embedding: Tensor = root.positional_embedding
        self.ln_final: nn.Module = root.ln_final
        self.projection: Tensor | nn.Linear | None = root.text_projection
        self.mask: Tensor | None = root.attn_mask
        self.pool: str = getattr(root, "pool_type", None) or root.text_pool_type
        self.width: int = self.token_embedding.embedding_dim
        self.context_length: int = root.context_length
        self.causal = self.mask is not None and self.pool in ("argmax", "eos")
        self.sos, self.eot, self.pad = self._surroundings()

    @property
    def device(self) -> torch.device:
        return self.token_embedding.weight.device

    def tokens(self, text: str) -> list[int]:
        """The token ids of a text, without SOS and EOT."""
        if hasattr(self.tokenizer, "encode"):  # a SimpleTokenizer, otherwise an HFTokenizer around another
            return self.tokenizer.encode(text)
        return list(self.tokenizer.tokenizer(self.tokenizer.clean_fn(text), add_special_tokens=False).input_ids)

    def _surroundings(self) -> tuple[int | None, int, int]:
        """SOS, EOT and padding, read off a tokenized text: each family of tokenizers has its own."""
        text = self.tokens("a")
        row = self.tokenizer(["a"])[0].tolist()
        for sos in ([], row[:1]):
            eot, *padding = row[len(sos) + len(text) :]
            if row == [*sos, *text, eot, *padding] and len({*padding}) == 1:
                return (sos[0] if sos else None), eot, padding[0]
        raise InputError(f"the tokenizer {type(self.tokenizer).__name__} lays a text out as {row[:8]} ...: not handled")

    def embed(self, text: str) -> Float[Tensor, "tokens width"]:
        """The token embeddings of a text, a context to start from."""
        return self.token_embedding(torch.tensor(self.tokens(text), device=self.device, dtype=torch.long))

    def project(self, hidden: Float[Tensor, "... width"]) -> Float[Tensor, "... embed"]:
        """Final norm and projection of the hidden state that is read, to unit length (in fp32)."""
        hidden = self.ln_final(hidden)
        if isinstance(self.projection, nn.Linear):
            hidden = self.projection(hidden)
        elif self.projection is not None:
            hidden = hidden @ self.projection
        return F.normalize(hidden.float(), dim=-1)
