"""A pool of kind `emoji`: draw its images, hold some of them out, and have tasks made of those.

Of each concept some vendors are held out and never trained on. One part of them is `val`, the miniature's ImageNet-val;
the other is `dev`, on which recipes are tuned, so that nothing was chosen by what `val` shows. Sets that finish one
design differently (flat, three-dimensional) are held out together, and one of them is scored. Whole styles (another
vendor, black and white, monochrome) are the distribution shifts. That nothing held out is trained on is checked by the
bytes of the drawings, not by their names: two vendors may ship the same picture.
"""

import io
from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.files import atomic_dir, sha256
from clipdr.pool.emoji_tasks import write_tasks
from clipdr.pool.held import Held
from clipdr.pool.icons import Concept, IconSet, choose, load_concepts, load_set
from clipdr.pool.layout import write_pool
from clipdr.pool.words import caption, texts
from clipdr.progress import log, progress


def build(sources: Path, pool: dict, pool_dir: Path, tasks_dir: Path) -> None:
    """Write the training pool and the evaluation tasks.

    Args:
        sources: what `fetch` wrote.
        pool: the scale's `pool` section.
        pool_dir: receives `00000.tar`, … (`<uid>.webp`, `.txt`, `.json`) and `index.parquet`
            (uid, shard, caption, texts, sha256, concept, vendor).
        tasks_dir: receives `wds_<task>/` folders in clip_benchmark's layout.

    Raises:
        UserError: too few vendors for the concepts asked for, a missing glyph, a share-alike set, or a held-out
            drawing that is also in the pool.
    """
    sets = {name: load_set(sources, name) for name in [*pool["vendors"], *pool["styles"].values()]}
    concepts = choose(load_concepts(sources, list(sets.values()), pool["subgroups"]), pool)
    designs = {concept.hexcode: _held_out(concept, pool) for concept in concepts}
    held_out = {code: [vendor for vendors in held for vendor in vendors] for code, held in designs.items()}
    images = _draw(concepts, sets, pool["image_size"])

    trained = [
        (concept, vendor)
        for concept in concepts
        for vendor in pool["vendors"]
        if vendor in concept.icons and vendor not in held_out[concept.hexcode]
    ]
    records = [_record(concept, vendor, images[concept.hexcode, vendor], pool) for concept, vendor in trained]
    unseen = {
        key: image for key, image in images.items() if key[1] not in pool["vendors"] or key[1] in held_out[key[0]]
    }
    _check_apart(records, unseen)

    records.sort(key=lambda record: record["uid"])  # uids are hashes: shards are mixtures, not runs of one concept
    splits = _splits(concepts, designs, images, pool)
    with atomic_dir(tasks_dir) as partial:
        write_tasks(partial, concepts, splits, pool)
    with atomic_dir(pool_dir) as partial:
        samples = ((record, {"webp": images[record["concept"], record["vendor"]]}) for record in records)
        write_pool(partial, samples, pool["shard_size"])
    log.info("%d concepts, %d image-text pairs, %d drawings held out", len(concepts), len(records), len(unseen))


def _held_out(concept: Concept, pool: dict) -> list[list[str]]:
    """The designs of this concept that are never trained on, each as the list of vendors that draw it.

    As many as the splits of `held_out` ask for, chosen by a hash of concept, design and seed.
    """
    designs: dict[str, list[str]] = {}
    for vendor in pool["vendors"]:
        if vendor in concept.icons:
            designs.setdefault(pool["finishes"].get(vendor, vendor), []).append(vendor)
    ranked = sorted(designs, key=lambda name: sha256(f"{pool['seed']}:{concept.hexcode}:{name}".encode()))
    return [designs[name] for name in ranked[: sum(pool["held_out"].values())]]


def _splits(concepts: list[Concept], designs: dict, images: dict, pool: dict) -> dict[str, list[Held]]:
    """Split, or style -> its drawings, in the order of concepts. Of a design that is finished twice one is taken."""
    splits, taken = {}, 0
    for split, number in pool["held_out"].items():
        splits[split] = [(c, vendors[0]) for c in concepts for vendors in designs[c.hexcode][taken : taken + number]]
        taken += number
    splits |= {style: [(c, name) for c in concepts if name in c.icons] for style, name in pool["styles"].items()}
    return {
        split: [Held(concept, name, images[concept.hexcode, name]) for concept, name in drawings]
        for split, drawings in splits.items()
    }


def _draw(concepts: list[Concept], sets: dict[str, IconSet], size: int) -> dict[tuple[str, str], bytes]:
    """(hexcode, set) -> lossless WebP of every drawing of every concept."""
    todo = [(concept, name) for concept in concepts for name in sets if name in concept.icons]
    return {
        (concept.hexcode, name): render(sets[name].svg(concept.icons[name]), size)
        for concept, name in progress(todo, "drawing", len(todo))
    }


def render(svg: str, size: int) -> bytes:
    """Lossless WebP, `size` × `size` px, RGB, the drawing on white.

    Raises:
        UserError: the drawing is empty.
    """
    import resvg_py
    from PIL import Image

    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    if drawing.getextrema()[3][1] == 0:
        raise UserError(f"a glyph draws nothing; its SVG begins {svg[:160]!r}; drop its set from the scale")
    square = Image.new("RGB", (size, size), "white")
    square.paste(drawing, ((size - drawing.width) // 2, (size - drawing.height) // 2), drawing)
    buffer = io.BytesIO()
    square.save(buffer, "WEBP", lossless=True, method=6)
    return buffer.getvalue()


def _record(concept: Concept, vendor: str, image: bytes, pool: dict) -> dict:
    uid = sha256(f"{vendor}:{concept.hexcode}".encode())[:32]
    rng = np.random.default_rng([pool["seed"], int(uid[:8], 16)])
    return {
        "uid": uid,
        "caption": caption(concept, pool["name_share"], rng),
        "texts": texts(concept, rng),
        "sha256": sha256(image),
        "concept": concept.hexcode,
        "label": concept.label,
        "vendor": vendor,
    }


def _check_apart(records: list[dict], unseen: dict[tuple[str, str], bytes]) -> None:
    trained = {record["sha256"]: record for record in records}
    for (hexcode, name), image in unseen.items():
        twin = trained.get(sha256(image))
        if twin:
            raise UserError(
                f"{name} holds out the drawing of {hexcode} that {twin['vendor']} trains on for {twin['label']!r}; "
                "change pool.seed, or drop one of the two sets from the scale"
            )
