"""One image walks down the same stairs: the files whose code runs on its way are few, and the document lists them.

``python tests/project/test_stairs.py`` prints both lists.
"""

import sys
import tempfile
import threading
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "solder_vae"
DOCUMENT = Path(__file__).parents[2] / "docs" / "project" / "architecture.md"
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))


def files_run(work):
    """The package's files in which a function is called while ``work`` runs, in the order of the first call."""
    found = {}

    def look(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(f"{PACKAGE}/"):
            found.setdefault(frame.f_code.co_filename.removeprefix(f"{PACKAGE}/"))

    threading.setprofile(look)  # pictures are decoded in threads
    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    layers = "models/layers/"  # a folder counts as one part of its room
    names = [layers if name.startswith(layers) else name for name in found if not name.endswith("__init__.py")]
    return list(dict.fromkeys(names))


def in_predict(folder):
    """From a picture's path to its verdict."""
    from checkpoints import pictures, write_checkpoint, write_images

    from solder_vae.inspection.inspector import Inspector

    (path,) = write_images(folder / "joints", pictures(1))
    inspector = Inspector.load(write_checkpoint(folder / "a.ckpt")[0])
    return files_run(lambda: inspector.score([path]))


def in_training(folder):
    """From a folder of pictures through a training step and the test to the run's numbers."""
    import pytorch_lightning as pl
    from checkpoints import pictures, write_images

    from solder_vae.data.datamodule import SolderDataModule
    from solder_vae.data.folder import FolderSource
    from solder_vae.evaluation.evaluate import evaluate_model
    from solder_vae.metrics.threshold import Quantile
    from solder_vae.models import BetaVAE
    from solder_vae.models.steps import TrainingModule

    for name in ("normal", "short"):
        write_images(folder / "images" / name, pictures(24, seed=len(name)))
    data = SolderDataModule(FolderSource(folder / "images", image_size=16), batch_size=8)
    model = BetaVAE(score="gradcon", alpha=0.03)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip

    def work():
        data.setup()
        trainer.fit(TrainingModule(model), data)
        evaluate_model(model.eval(), data, Quantile(0.9))

    return files_run(work)


def measured(way):
    with tempfile.TemporaryDirectory() as folder:
        return way(Path(folder))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("way", "most"), [(in_predict, 23), (in_training, 42)])
def test_the_files_on_the_way_are_those_of_the_document(way, most, tmp_path):
    files = way(tmp_path)
    assert len(files) <= most
    listed = DOCUMENT.read_text(encoding="utf-8").partition(f"<!-- {way.__name__} -->")[2].partition("```\n")[2]
    assert sorted(listed.partition("\n```")[0].split()) == sorted(files)


if __name__ == "__main__":
    for way in (in_predict, in_training):
        files = measured(way)
        print(f"{way.__name__}: {len(files)} files\n  " + "\n  ".join(files))
