"""``python tests/support/hostile.py READER FIRST COUNT FOLDER``: a reader is fed files that were damaged on purpose.

Case ``i`` follows from ``i`` alone. A case must end well or in UserError; anything else is told with its number and
ends the process, as do a crash of the interpreter, a case of more than ``SECONDS`` and one that needs more memory than
``BOUND``. Prints how many cases ended how.
"""

import contextlib
import faulthandler
import io
import json
import os
import pickle
import resource
import struct
import sys
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import tifffile

from solder_vae.data.image_files import MAX_PIXELS, read_image
from solder_vae.utils.errors import UserError

SECONDS = 20
#: Bytes beyond what the process has after its imports: 24 for each pixel that the largest image may have (8 when
#: decoded, at 16 bits and four channels; decoded twice; 4 + 3 at 8 bits) and something for everything else.
BOUND = 24 * int(os.environ.get("OPENCV_IO_MAX_IMAGE_PIXELS", MAX_PIXELS)) + (128 << 20)

NASTY = (
    0,
    1,
    2,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x2000,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)


def image_seeds() -> list[bytes]:
    """Small images of every format and kind of pixels."""
    colour = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    grey, alpha = colour[..., 0], np.dstack([colour, colour[..., :1]])
    wide = colour.astype(np.uint16) * 257
    seeds = [cv2.imencode(".png", image)[1].tobytes() for image in (colour, grey, alpha, wide)]
    seeds += [cv2.imencode(".jpg", image)[1].tobytes() for image in (colour, grey)]
    seeds += [cv2.imencode(".jpg", colour, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()]
    for compression in (1, 5, 8, 32773):  # none, LZW, deflate, PackBits
        options = [cv2.IMWRITE_TIFF_COMPRESSION, compression]
        seeds += [cv2.imencode(".tif", image, options)[1].tobytes() for image in (colour, wide)]
    seeds += [cv2.imencode(".bmp", image)[1].tobytes() for image in (colour, grey, alpha)]
    seeds += [cv2.imencode(suffix, colour)[1].tobytes() for suffix in (".ppm", ".ras", ".webp")]
    seeds += [cv2.imencode(".jp2", np.kron(colour, np.ones((4, 4, 1), np.uint8)))[1].tobytes()]
    for samples, kind in ((alpha, "rgb"), (wide, "rgb"), (wide[..., :2], "minisblack"), (wide[..., :1], "miniswhite")):
        for planar in ("contig", "separate"):
            stored = np.ascontiguousarray(samples if planar == "contig" else np.moveaxis(samples, 2, 0))
            extra = ("unassalpha",) if samples.shape[2] in (2, 4) else ()
            more = {"planarconfig": planar, "extrasamples": extra} if samples.shape[2] > 1 else {}
            for big in (False, True):
                file = io.BytesIO()
                image = stored if more else stored.reshape(12, 10)
                tifffile.imwrite(file, image, photometric=kind, bigtiff=big, metadata=None, compression="zlib", **more)
                seeds.append(file.getvalue())
    return seeds


def checkpoint_seeds() -> list[bytes]:
    """What ``torch.save`` writes, small, and the same with a compressed archive."""
    import torch
    from torch import nn

    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    content = {
        "model": "cae",
        "state_dict": network.state_dict(),
        "hyper_parameters": {"beta": None, "score": "recon"},
        "preprocessing": {"image_size": 16},
        "precision": "32-true",
        "calibration": None,
        "epoch": 3,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    deflated = io.BytesIO()
    with zipfile.ZipFile(buffer) as archive, zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name))
    return [buffer.getvalue(), deflated.getvalue(), pickle.dumps({"model": "cae", "state_dict": {}}, protocol=2)]


def mutate(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """A few changes, most of them where a header may be."""
    result = bytearray(data)
    for _ in range(random.integers(1, 5)):
        reach = len(result) if random.random() < 0.3 else min(len(result), 128)
        at = int(random.integers(reach)) if reach else 0
        kind = random.integers(8)
        if kind == 0:
            result[at : at + 1] = bytes([random.integers(256)])
        elif kind == 1 and reach:
            result[at] ^= 1 << int(random.integers(8))
        elif kind <= 4:  # a field's value
            code = ("<", ">")[random.integers(2)] + "HI"[random.integers(2)]
            value = NASTY[random.integers(len(NASTY))] & (2 ** (8 * struct.calcsize(code)) - 1)
            result[at : at + struct.calcsize(code)] = struct.pack(code, value)
        elif kind == 5:
            end = len(result) if random.random() < 0.3 else at + int(random.integers(1, 9))
            del result[at:end]
        elif kind == 6:
            result[at:at] = result[at : at + int(random.integers(1, 64))]
        else:
            result[at : at + 16] = other[at : at + 16]
    return bytes(result)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums that fit, so that readers go on to what is in them."""
    result, at = bytearray(data), 8
    while at + 12 <= len(result):
        (length,) = struct.unpack_from(">I", result, at)
        if at + 12 + length > len(result):
            break
        struct.pack_into(">I", result, at + 8 + length, zlib.crc32(result[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(result)


def refreshed(data: bytes) -> bytes:
    """An archive whose entries have the checksums that fit."""
    for signature, offset in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        at = data.find(signature)
        while at >= 0 and at + 30 < len(data):
            name, extra = struct.unpack_from("<HH", data, at + offset + 12)
            size = struct.unpack_from("<I", data, at + offset + 8)[0]
            if signature == b"PK\x03\x04" and size:
                body = data[at + 30 + name + extra : at + 30 + name + extra + size]
                data = data[: at + 14] + struct.pack("<I", zlib.crc32(body)) + data[at + 18 :]
            at = data.find(signature, at + 4)
    return data


def damaged(seeds: list[bytes], case: int) -> bytes:
    random = np.random.default_rng(case)
    data, other = seeds[case % len(seeds)], seeds[random.integers(len(seeds))]
    result = mutate(data, other, random)
    repair = random.random() < 0.5
    if repair and result.startswith(b"\x89PNG"):
        return with_checksums(result)
    return refreshed(result) if repair and result.startswith(b"PK") else result


def read_model(path: Path) -> None:
    """Read a checkpoint; being of another architecture, it becomes no model, but must say so."""
    from solder_vae.models.checkpoint import load_model, read_checkpoint

    read_checkpoint(path)
    with contextlib.suppress(UserError):
        load_model(path)


READERS = {"image": (image_seeds, read_image), "checkpoint": (checkpoint_seeds, read_model)}


def used() -> int:
    """The most memory that the process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(reader: str, first: int, count: int, folder: Path) -> Counter:
    seeds_of, read = READERS[reader]
    seeds = seeds_of()
    path = folder / f"{reader}.bin"
    path.write_bytes(seeds[0])
    read(path)  # imports what it needs
    before, ends = used(), Counter()
    for case in range(first, first + count):
        path.write_bytes(damaged(seeds, case))
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            read(path)
            ends["read"] += 1
        except UserError:
            ends["refused"] += 1
        except BaseException:
            print(f"case {case} of {reader}", file=sys.stderr)
            raise
        faulthandler.cancel_dump_traceback_later()
        assert used() - before < BOUND, f"case {case} of {reader} took {(used() - before) / 2**30:.1f} GiB"
    ends["MiB"] = (used() - before) >> 20
    return ends


if __name__ == "__main__":
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))))
