"""Published reinforcements in small, as apple/DataCompDR-12M-bf16 has them, and a world that has their images."""

import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from clipdr.data.samples import encode
from clipdr.data.shards import write_shard
from clipdr.files import sha256

TEACHERS = [{"name": name, "width": 6, "logit_scale": 100.0} for name in ("openai", "datacomp")]
AUGMENTATION = {"views": 2, "image_size": 32, "crop_scale": [0.5, 1.0], "num_ops": 0, "magnitude": 0, "seed": 0}
SETTINGS = {"teachers": TEACHERS, "augmentation": AUGMENTATION, "bad_samples": "skip"}
SHARDS = {"00000000.tar": range(5), "00000001.tar": range(5, 12)}


def uid(number: int) -> str:
    return f"{number:032x}"


def picture(number: int, size: tuple[int, int] = (60, 40)) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(stream, "jpeg")
    return stream.getvalue()


def published(number: int, precision: str = "bfloat16") -> dict:
    """What apple/DataCompDR-12M has of a sample: neither image nor caption."""
    random = torch.Generator().manual_seed(number)
    emb = [
        torch.cat([torch.nn.functional.normalize(torch.randn(n, 6, generator=random), dim=1) for _ in TEACHERS], dim=1)
        for n in (2, 3)
    ]
    entries = [[[0, 0, 40, 60], []], [[10, 20, 30, 40], []]]
    details = json.dumps({"uid": uid(number), "sha256": sha256(picture(number))}).encode()
    base = {"__key__": uid(number), "jpg": b"", "txt": b"", "json": details}
    members = encode(base, [f"one {number}", f"two {number}"], entries, *emb, precision)
    members["paug.json"] = json.dumps({"param_aug": json.dumps(entries)}).encode()  # as the hub delivers it
    members["url.txt"] = f"http://localhost/{number}.jpg".encode()
    return {name: value for name, value in members.items() if name not in ("jpg", "txt")}


def fetched(number: int) -> dict:
    """What img2dataset writes of one: a number of its own as key, the uid in its json."""
    details = {"uid": uid(number), "url": f"http://localhost/{number}.jpg", "status": "success"}
    return {
        "__key__": f"{number:09d}",
        "jpg": picture(number),
        "txt": f"caption {number}".encode(),
        "json": json.dumps(details).encode(),
    }


REPOSITORY, REVISION = "apple/DataCompDR-12M-bf16", "0123456789abcdef0123456789abcdef01234567"

# Number of a sample -> what its address answers; all others give their image.
GONE, SLOW, CUT, MOVED, PAGE, CHANGED, FLAKY = 1, 2, 3, 4, 5, 6, 7
FORBIDDEN = 2009  # is the image of 9, which may not be used for training


def _lfs(path: Path) -> dict:
    """What the hub knows of a large file."""
    data = path.read_bytes()
    return {"oid": sha256(data), "size": len(data), "pointerSize": 130}


class World(BaseHTTPRequestHandler):
    """Images at /<number>.jpg, and the hub's dataset `REPOSITORY`, which lies in the server's `tree`."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(head=True)

    def do_GET(self) -> None:
        self.answer()

    def answer(self, head: bool = False) -> None:
        self.server.asked[self.path] += 1
        if "/" in self.path[1:]:
            return self.hub(head)
        number = int(self.path.strip("/").split(".")[0])
        if number == SLOW:
            time.sleep(4)
        if number == GONE or (number == FLAKY and self.server.asked[self.path] == 1):
            return self.send(b"gone", 404 if number == GONE else 503)
        if number == MOVED:
            return self.send(b"", 302, Location="/1004.jpg")
        if number == PAGE:
            return self.send(b"<html>This picture is not here any more.</html>", 200)
        image = picture(99) if number == CHANGED else picture(number % 1000)
        if number == FORBIDDEN:
            return self.send(image, 200, **{"X-Robots-Tag": "noai"})
        if number == CUT:
            self.send_response(200)
            self.send_header("Content-Length", str(len(image)))
            self.end_headers()
            self.wfile.write(image[: len(image) // 2])
            return self.connection.close()
        return self.send(image, 200)

    def hub(self, head: bool) -> None:
        tree, at = self.server.tree, f"/datasets/{REPOSITORY}/resolve/{REVISION}/"
        if self.path == f"/api/datasets/{REPOSITORY}":
            info = {"id": REPOSITORY, "sha": REVISION, "private": False, "tags": [], "siblings": []}
            return self.send(json.dumps(info).encode(), 200, **{"Content-Type": "application/json"})
        if self.path.startswith(f"/api/datasets/{REPOSITORY}/tree/{REVISION}"):
            files = [path for path in sorted(tree.rglob("*")) if path.is_file()]
            listed = [
                {
                    "type": "file",
                    "path": path.relative_to(tree).as_posix(),
                    "size": path.stat().st_size,
                    "oid": "0" * 40,
                }
                | ({"lfs": _lfs(path)} if path.suffix in (".tar", ".zip") else {})
                for path in files
            ]
            return self.send(json.dumps(listed).encode(), 200, **{"Content-Type": "application/json"})
        if self.path.startswith(at) and (tree / self.path.removeprefix(at)).is_file():
            data = (tree / self.path.removeprefix(at)).read_bytes()
            tags = {"ETag": f'"{sha256(data)[:40]}"', "X-Repo-Commit": REVISION}
            return self.send(b"" if head else data, 200, length=len(data), **tags)
        return self.send(b'{"error": "not here"}', 404)

    def send(self, body: bytes, status: int, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body) if length is None else length), **headers}.items():
            self.send_header(name, value)
        with suppress(OSError):  # who asked has given up
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass

    def finish(self) -> None:
        with suppress(OSError):  # who asked has given up
            super().finish()


@contextmanager
def serving(tree: Path) -> Iterator[ThreadingHTTPServer]:
    """A server of images, and of `tree` as a dataset of the hub; `asked` counts its requests by path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), World)
    server.asked, server.tree = Counter(), tree
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def write_tree(folder: Path, port: int) -> None:
    """`published`: three shards in folders, as the large set has them; and `captions`, in two files."""
    for shard, numbers in {"00/00000000.tar": range(6), "00/00000001.tar": range(6, 9), "01/00000000.tar": [9]}.items():
        (folder / "published" / shard).parent.mkdir(parents=True, exist_ok=True)
        addresses = {n: {"url.txt": f"http://127.0.0.1:{port}/{n}.jpg".encode()} for n in numbers}
        write_shard(folder / "published" / shard, [published(n) | addresses[n] for n in numbers])
    (folder / "captions").mkdir()
    table = pd.DataFrame({"uid": [uid(n) for n in range(20)], "url": "", "text": [f"text {n}" for n in range(20)]})
    for part in (0, 1):
        table[part::2].to_parquet(folder / f"captions/{part}.parquet")
