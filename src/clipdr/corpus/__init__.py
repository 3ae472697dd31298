"""Stage `corpus`: texts that do not belong to the images, and which of them are worth learning from (DIME-FM).

sentences ──► embedded by each teacher ──┐
images    ──► embedded by the first one ─┴─► corpus: the chosen texts with their embeddings
"""
