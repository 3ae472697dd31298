"""How fast a text of its own is found for each image (DIME-FM, Algorithm 1), against a product of matrices.

Of unit vectors at random nearly all images find a text in the first rounds. The limit is the time that torch takes to
multiply the same vectors in the same blocks, measured here on a few of them, when no maximum is taken of the products.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from clipdr.corpus.matching import NONE, Blocks, find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--block-images", type=int, default=1024)
    parser.add_argument("--block-texts", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    blocks = Blocks(args.block_images, args.block_texts)
    img_ND, txt_MD = unit(0, args.images, args.width), unit(1, args.texts, args.width)
    limit = product_seconds(img_ND, txt_MD, blocks)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        text_N, rounds = find(img_ND, txt_MD, "first", blocks, Path(folder))
        seconds = time.perf_counter() - start
    flops = 2 * args.images * args.texts * args.width
    print(
        json.dumps(
            {
                "images": args.images,
                "texts": args.texts,
                "width": args.width,
                "rounds": len(rounds),
                "matched": round(float((text_N != NONE).mean()), 4),
                "seconds": round(seconds, 1),
                "product seconds": round(limit, 1),
                "of the product's rate": round(limit / seconds, 3),
                "GFLOP/s of the product": round(flops / limit / 1e9, 1),
                "memory MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024,
            },
            indent=1,
        )
    )


def unit(seed: int, number: int, width: int) -> np.ndarray:
    """float16 [number, width], L2-normalised."""
    vectors = np.random.default_rng(seed).standard_normal((number, width), np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def product_seconds(img_ND: np.ndarray, txt_MD: np.ndarray, blocks: Blocks, tried: int = 40) -> float:
    """Time of all products, from the mean of some."""
    images = torch.from_numpy(img_ND[: blocks.images].astype(np.float32))
    texts = torch.from_numpy(txt_MD[: blocks.texts].astype(np.float32))
    torch.mm(images, texts.T)
    start = time.perf_counter()
    for _ in range(tried):
        torch.mm(images, texts.T)
    one = (time.perf_counter() - start) / tried
    return one * (len(img_ND) / len(images)) * (len(txt_MD) / len(texts))


if __name__ == "__main__":
    main()
