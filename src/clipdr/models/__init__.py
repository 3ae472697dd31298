"""Models: by name (`create`), as a folder that open_clip reads (`folder`, `load`), and folded for inference (`fold`).

A model has `visual`, `text` (or CoCa's parts) and `logit_scale`. Those of `create.create_model` and `load.load_model`
also have `preprocess`, PIL image -> float tensor [3, S, S], and `tokenizer`, list of str -> int64 tokens
[n, context_length] (`tokenizer.Tokenizer`). Nothing is imported here, so that training does not depend on how models
are named or read.
"""
