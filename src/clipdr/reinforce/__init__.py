"""Stage `reinforce`: synthetic captions, stored augmentations and teacher embeddings, once for all later runs."""
