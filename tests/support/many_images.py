"""A folder of very many tiny images, written in seconds: bitmaps, whose bytes are their pixels."""

from pathlib import Path

import numpy as np

SIDE = 12  # px, so that a row of 36 bytes needs no padding
PER_FOLDER = 1000


def write_many(root: Path, normals: int, abnormals: int) -> None:
    """Noisy squares, all different, with a bright middle if normal: normal/b0000/000.bmp and so on, short/0.bmp."""
    generator = np.random.default_rng(0)
    spot = np.zeros((SIDE, SIDE, 3), np.uint8)
    spot[4:8, 4:8] = 100

    def pixels(count: int) -> np.ndarray:
        return generator.integers(60, 120, (count, SIDE, SIDE, 3), np.uint8)

    for start in range(0, normals, PER_FOLDER):
        write(root / "normal" / f"b{start // PER_FOLDER:04}", pixels(min(PER_FOLDER, normals - start)) + spot)
    write(root / "short", pixels(abnormals))


def write(folder: Path, images: np.ndarray) -> None:
    """``(N, SIDE, SIDE, 3)`` uint8 as bitmaps of 24 bits."""
    size = images[0].nbytes
    numbers = [54 + size, 0, 54, 40, SIDE, SIDE, 1 + (24 << 16), 0, size, 0, 0, 0, 0]
    header = b"BM" + np.array(numbers, "<u4").tobytes()
    folder.mkdir(parents=True)
    for number, image in enumerate(images):
        (folder / f"{number:03}.bmp").write_bytes(header + image.tobytes())
