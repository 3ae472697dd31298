"""Losses: functions of tensors, free of models, data and training loop.

Shape suffixes: B pairs in the batch, D student width, E width of one teacher.
All embeddings are L2-normalised float tensors; losses are scalars in nats.
"""
