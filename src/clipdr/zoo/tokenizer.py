"""A small byte-pair tokenizer: a 49,408-token vocabulary would outweigh the miniature's models."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from clipdr.files import atomic_dir

PAD, START, END, UNKNOWN = "<pad>", "<start_of_text>", "<end_of_text>", "<unknown>"  # ids 0, 1, 2, 3


def tokenizer_of(pool: Path, vocab_size: int, output: Path) -> None:
    """Train on all human texts of a pool and write the folder `output`."""
    texts = pd.read_parquet(pool / "index.parquet")["texts"]
    with atomic_dir(output) as folder:
        train_tokenizer((text for row in texts for text in row), vocab_size, folder)


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> None:
    """Train on `texts` and write the files that open_clip's HFTokenizer reads. Lower case, `START text END PAD…`.

    Tokens are made of the characters of `texts`, not of bytes: whatever a captioner samples is readable. A word begins
    with `▁`; a suffix at its end would do as well, but the library numbers suffixed characters differently each time.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[PAD, START, END, UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(sorted(texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, 1), (END, 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
