"""Zero-shot retrieval: recall@k between N images and M captions, in both directions.

Names and definitions are clip_benchmark's: image_retrieval_recall@k (text -> image) is the fraction of captions whose
image is among the k best images; text_retrieval_recall@k (image -> text) is the fraction of images with at least one of
their own captions among the k best captions. An equal caption of another image counts as a miss, there as here.
One decision more: a tie goes to the lower index. clip_benchmark leaves it to topk. mean_recall@1 is the mean of both
directions: the "Flickr30k" column of MobileCLIP's ablations.

first_caption_… are those of a test with the first caption of each image alone, N against N, which is what the published
code of CLIP-KD measures: another test, whose numbers are not those of the usual one.

Only the rank of the best correct candidate is needed, so scores are made and dropped in blocks of rows;
clip_benchmark's one-hot tensor grows with batch x k x candidates.

A folder has `txt` beside each image, a caption per line.

Shapes: N images, M captions, D embedding dimensions, B rows of a block, Q queries, C candidates.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.evaluate.tasks import Images, annotation, open_images, read_images

Outcomes = dict[str, np.ndarray]

METRICS = [
    "mean_recall@1",
    "image_retrieval_recall@1",
    "image_retrieval_recall@5",
    "image_retrieval_recall@10",
    "text_retrieval_recall@1",
    "text_retrieval_recall@5",
    "text_retrieval_recall@10",
    "first_caption_image_retrieval_recall@1",
    "first_caption_text_retrieval_recall@1",
]
KS = (1, 5, 10)
BLOCK = 1024


def open_task(folder: Path, entry: dict) -> Images:
    return open_images(folder, entry, "retrieval")


def score(task: Images, encoder) -> Outcomes:
    return outcomes(*embeddings(task, encoder))


def embeddings(task: Images, encoder) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of images [N, D] and of captions [M, D], and owner_M, the row of each caption's image."""
    captions: list[list[str]] = []
    img_ND, kept = encoder.images(_captioned(task, captions), task.skip)
    captions = [own for own, keep in zip(captions, kept, strict=True) if keep]
    txt_MD = encoder.texts([caption for own in captions for caption in own])
    return img_ND, txt_MD, np.repeat(np.arange(len(captions)), [len(own) for own in captions])


def outcomes(img_ND: np.ndarray, txt_MD: np.ndarray, owner_M: np.ndarray) -> Outcomes:
    """image_rank_M of each caption's image, text_rank_N of each image's best own caption, and owner_M.

    And first_image_rank_N and first_text_rank_N, the same of the first caption of each image alone.

    img_ND, txt_MD: float embeddings, normalised here. owner_M: int [M], the row of img_ND a caption belongs to; every
    image has at least one caption.
    """
    img_ND = np.asarray(img_ND) / np.linalg.norm(img_ND, axis=1, keepdims=True)
    txt_MD = np.asarray(txt_MD) / np.linalg.norm(txt_MD, axis=1, keepdims=True)
    owner_M, all_N = np.asarray(owner_M), np.arange(len(img_ND))
    first_ND = txt_MD[np.unique(owner_M, return_index=True)[1]]
    return {
        "owner": owner_M,
        "image_rank": _all_ranks(txt_MD, img_ND, owner_M, all_N),
        "text_rank": _all_ranks(img_ND, txt_MD, all_N, owner_M),
        "first_image_rank": _all_ranks(first_ND, img_ND, all_N, all_N),
        "first_text_rank": _all_ranks(img_ND, first_ND, all_N, all_N),
    }


def units(outcomes: Outcomes) -> int:
    return len(outcomes["text_rank"])


def metrics(outcomes: Outcomes, weights_N: np.ndarray) -> dict[str, float | None]:
    """image_retrieval_recall@k and text_retrieval_recall@k, None for a k above the number of candidates."""
    image_rank_M, text_rank_N = outcomes["image_rank"], outcomes["text_rank"]
    weights_M = weights_N[outcomes["owner"]]
    to_image = {k: float((image_rank_M < k) @ weights_M / weights_M.sum()) for k in KS}
    to_text = {k: float((text_rank_N < k) @ weights_N / weights_N.sum()) for k in KS}
    first = {
        f"first_caption_{side}_retrieval_recall@1": float(
            (outcomes[f"first_{side}_rank"] < 1) @ weights_N / weights_N.sum()
        )
        for side in ("image", "text")
    }
    return {
        **first,
        **{f"image_retrieval_recall@{k}": recall if k <= len(text_rank_N) else None for k, recall in to_image.items()},
        **{f"text_retrieval_recall@{k}": recall if k <= len(image_rank_M) else None for k, recall in to_text.items()},
        "mean_recall@1": (to_image[1] + to_text[1]) / 2,
    }


def chance(outcomes: Outcomes) -> dict[str, float]:
    """Of candidates in random order: exact, also with several captions of an image."""
    images, captions = units(outcomes), len(outcomes["owner"])
    own_N = np.bincount(outcomes["owner"], minlength=images)
    ones = ("mean_recall@1", "first_caption_image_retrieval_recall@1", "first_caption_text_retrieval_recall@1")
    found = dict.fromkeys(ones, 1 / images)
    for k in KS:
        if k <= images:
            found[f"image_retrieval_recall@{k}"] = k / images
        if k <= captions:
            missed_N = np.prod([np.maximum(captions - own_N - i, 0) / (captions - i) for i in range(k)], axis=0)
            found[f"text_retrieval_recall@{k}"] = float(1 - missed_N.mean())
    return found


def facts(outcomes: Outcomes) -> dict[str, int]:
    return {"num_images": units(outcomes), "num_texts": len(outcomes["owner"])}


def best_ranks(scores_BC: np.ndarray, correct_BC: np.ndarray) -> np.ndarray:
    """Rank [B] int, 0 is best, of each row's best correct candidate; a tie goes to the lower index.

    scores_BC: float [B, C], finite. correct_BC: bool [B, C] with at least one True per row.
    """
    best_B = np.where(correct_BC, scores_BC, -np.inf).argmax(axis=1)
    best_score_B1 = np.take_along_axis(scores_BC, best_B[:, None], axis=1)
    before_BC = np.arange(scores_BC.shape[1])[None, :] < best_B[:, None]
    return ((scores_BC > best_score_B1) | ((scores_BC == best_score_B1) & before_BC)).sum(axis=1)


def _all_ranks(query_QD: np.ndarray, item_CD: np.ndarray, image_of_query_Q, image_of_item_C) -> np.ndarray:
    """Rank [Q] of the best item that belongs to the query's image."""
    blocks = []
    for start in range(0, len(query_QD), BLOCK):
        rows = slice(start, start + BLOCK)
        correct_BC = image_of_query_Q[rows, None] == image_of_item_C[None, :]
        blocks.append(best_ranks(query_QD[rows] @ item_CD.T, correct_BC))
    return np.concatenate(blocks)


def _captioned(task: Images, captions: list[list[str]]) -> Iterator[tuple[bytes, str]]:
    for sample, image, where in read_images(task):
        own = annotation(sample, where, "txt").splitlines()
        if not own or not all(map(str.strip, own)):
            raise UserError(
                f"{where} has an empty .txt or a blank line in it; write at least one caption, one per line"
            )
        captions.append(own)
        yield image, where
