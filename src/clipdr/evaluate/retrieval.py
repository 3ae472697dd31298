"""Zero-shot retrieval: recall@k between N images and M captions, in both directions.

Names and definitions are clip_benchmark's: image_retrieval_recall@k (text -> image) is the fraction of captions whose
image is among the k best images; text_retrieval_recall@k (image -> text) is the fraction of images with at least one of
their own captions among the k best captions. An equal caption of another image counts as a miss, there as here.
One decision more: a tie goes to the lower index. clip_benchmark leaves it to topk.

Only the rank of the best correct candidate is needed, so scores are made and dropped in blocks of rows;
clip_benchmark's one-hot tensor grows with batch x k x candidates.

Shapes: N images, M captions, D embedding dimensions, B rows of a block.
"""

import numpy as np

KS = (1, 5, 10)
BLOCK = 1024


def best_ranks(scores_BC: np.ndarray, correct_BC: np.ndarray) -> np.ndarray:
    """Rank [B] int, 0 is best, of each row's best correct candidate; a tie goes to the lower index.

    scores_BC: float [B, C], finite. correct_BC: bool [B, C] with at least one True per row.
    """
    best_B = np.where(correct_BC, scores_BC, -np.inf).argmax(axis=1)
    best_score_B1 = np.take_along_axis(scores_BC, best_B[:, None], axis=1)
    before_BC = np.arange(scores_BC.shape[1])[None, :] < best_B[:, None]
    return ((scores_BC > best_score_B1) | ((scores_BC == best_score_B1) & before_BC)).sum(axis=1)


def retrieval_metrics(
    img_ND: np.ndarray, txt_MD: np.ndarray, image_of_text_M: np.ndarray, ks: tuple[int, ...] = KS
) -> dict[str, float]:
    """image_retrieval_recall@k, text_retrieval_recall@k for k in ks, and mean_recall@1; fractions in [0, 1].

    img_ND, txt_MD: float embeddings, normalised here. image_of_text_M: int [M], the row of img_ND a caption belongs to;
    every image has at least one caption. A k larger than the number of candidates is left out. mean_recall@1 is the
    mean of both directions: the "Flickr30k" column of MobileCLIP's ablations.
    """
    img_ND = np.asarray(img_ND) / np.linalg.norm(img_ND, axis=1, keepdims=True)
    txt_MD = np.asarray(txt_MD) / np.linalg.norm(txt_MD, axis=1, keepdims=True)
    owner_M = np.asarray(image_of_text_M)
    rank_M = _all_ranks(txt_MD, img_ND, owner_M, np.arange(len(img_ND)))
    rank_N = _all_ranks(img_ND, txt_MD, np.arange(len(img_ND)), owner_M)
    metrics = {f"image_retrieval_recall@{k}": float((rank_M < k).mean()) for k in ks if k <= len(img_ND)}
    metrics |= {f"text_retrieval_recall@{k}": float((rank_N < k).mean()) for k in ks if k <= len(txt_MD)}
    metrics["mean_recall@1"] = float((rank_M < 1).mean() + (rank_N < 1).mean()) / 2
    return metrics


def _all_ranks(query_QD: np.ndarray, item_CD: np.ndarray, image_of_query_Q, image_of_item_C) -> np.ndarray:
    """Rank [Q] of the best item that belongs to the query's image."""
    blocks = []
    for start in range(0, len(query_QD), BLOCK):
        rows = slice(start, start + BLOCK)
        correct_BC = image_of_query_Q[rows, None] == image_of_item_C[None, :]
        blocks.append(best_ranks(query_QD[rows] @ item_CD.T, correct_BC))
    return np.concatenate(blocks)
