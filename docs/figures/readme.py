"""README's pictures, each below 200 kB.

python docs/figures/readme.py report RUN/report.html     docs/images/readme_report.png, by Chromium on the PATH
python docs/figures/readme.py board                      docs/images/readme_board.jpg, out of board_types.png
python docs/figures/readme.py defects                    docs/images/readme_defects.png
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image

from solder_vae.data.synthetic import DEFECTS, render
from solder_vae.data.synthetic.sheet import contact_sheet

IMAGES = Path(__file__).resolve().parents[1] / "images"
SHARP = 7  # a joint whose picture is sharp


def save(name, image):
    path = IMAGES / f"readme_{name}"
    image = image.convert("RGB")
    if path.suffix == ".png":
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(path, optimize=True, quality=80)
    print(f"{path}: {image.width} x {image.height}, {path.stat().st_size / 1000:.0f} kB")


def report(path):
    """The top of a run's report and its first joints."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as tool, tool.chromium.launch(executable_path=chromium, args=["--no-sandbox"]) as browser:
        page = browser.new_page(viewport={"width": 960, "height": 590})
        page.goto(Path(path).resolve().as_uri())
        page.wait_for_timeout(1000)  # until the first pictures are decoded
        save("report.png", Image.open(io.BytesIO(page.screenshot())))


def board():
    """The verdicts on the seventh board of docs/use/crop.md."""
    save("board.jpg", Image.open(IMAGES / "board_types.png"))


def defects():
    """A good joint, and the same with each defect."""
    joints = [render(0, "test_abnormal", SHARP)]  # without a defect
    joints += [render(0, "test_abnormal", SHARP, defect, (0.8, 0.8)) for defect in DEFECTS]
    save("defects.png", Image.fromarray(contact_sheet(joints)))


if __name__ == "__main__":
    {"report": report, "board": board, "defects": defects}[sys.argv[1]](*sys.argv[2:])
