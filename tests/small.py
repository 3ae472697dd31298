"""What several tests make in small."""

import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from clipdr.models.folder import load_tokenizer, random_model, write_folder


def new_model(config: dict, tokenizer: Path, folder: Path, seed: int):
    """A folder without weights, its random model in training mode, and its tokenizer."""
    write_folder(config, tokenizer, folder)
    return random_model(config, seed, str(folder)), load_tokenizer(folder)


def in_processes(number: int, work: Callable[[], None]) -> list[int]:
    """Run `work` in forked processes that know each other as torchrun's do; their exit codes, -9 for a killed one.

    When one ends badly the others are killed, as torchrun does.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(number):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                if number > 1:
                    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                    os.environ |= where | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(number)}
                work()
                code = 0
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(code)
        children.append(pid)
    codes = {}
    while len(codes) < number:
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
        if codes[pid]:
            for other in set(children) - codes.keys():
                os.kill(other, 9)
    return [codes[pid] for pid in children]
