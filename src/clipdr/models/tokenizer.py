"""Texts to tokens, with texts that are too long as an error, or cut and counted; never cut in silence."""

from torch import Tensor

from clipdr.errors import UserError
from clipdr.progress import log


class Tokenizer:
    """An open_clip tokenizer, kept in `tokenize`, that says when a text does not fit into the context."""

    def __init__(self, tokenize):
        self.tokenize, self.context_length = tokenize, tokenize.context_length

    @property
    def marks(self) -> tuple[int, int, int]:
        """The tokens that start, end and pad a text."""
        if inner := getattr(self.tokenize, "tokenizer", None):  # of the Hugging Face Hub
            return inner.bos_token_id, inner.eos_token_id, inner.pad_token_id
        return self.tokenize.sot_token_id, self.tokenize.eot_token_id, 0  # CLIP's own

    def decode(self, tokens_NL: Tensor) -> list[str]:
        """The texts of tokens [N, L] that a model sampled: what stands before the first end, without marks."""
        start, end, pad = self.marks
        texts = []
        for row in tokens_NL.tolist():
            row = [token for token in row[: row.index(end) if end in row else None] if token not in (start, pad)]
            texts.append(self._text(row).strip())
        return texts

    def _text(self, tokens: list[int]) -> str:
        inner = getattr(self.tokenize, "tokenizer", None)
        return inner.decode(tokens, skip_special_tokens=True) if inner else self.tokenize.decode(tokens)

    def __call__(self, texts: str | list[str]) -> Tensor:
        """int64 tokens [len(texts), context_length], padded.

        Raises:
            UserError: a text has more tokens than the context.
        """
        texts = _listed(texts)
        tokens_NL, long = self._tokens(texts)
        if long:
            raise UserError(
                f"a text is longer than the model's context of {tokens_NL.shape[1]} tokens: {texts[long[0]][:60]!r}…; "
                "shorten it, or let the tokenizer's method `cut` cut it"
            )
        return tokens_NL

    def cut(self, texts: str | list[str]) -> Tensor:
        """As a call, but texts that are too long lose their end, as CLIP is trained; the log says how many."""
        texts = _listed(texts)
        tokens_NL, long = self._tokens(texts)
        if long:
            log.warning(
                "%d of %d texts are longer than %d tokens and were cut", len(long), len(texts), tokens_NL.shape[1]
            )
        return tokens_NL

    def _tokens(self, texts: list[str]) -> tuple[Tensor, list[int]]:
        """Tokens, and the positions of the texts that did not fit: those that fill a context one token longer."""
        length = self.context_length
        wider_NL = self.tokenize(["", *texts], context_length=length + 1)  # an empty text ends in padding
        long = (wider_NL[1:, length] != wider_NL[0, length]).nonzero()[:, 0].tolist()
        tokens_NL = wider_NL[1:, :length].contiguous()
        if long:
            tokens_NL[long] = self.tokenize([texts[n] for n in long])
        return tokens_NL, long


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts
