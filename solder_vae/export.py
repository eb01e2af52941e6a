"""``python -m solder_vae.export``: a checkpoint as one ONNX graph from camera pixels to the decision.

The graph is compared with the checkpoint before it takes its final name, see :mod:`solder_vae.inspection.onnx.parity`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solder_vae.inspection.onnx.export import check_installed, write_onnx
from solder_vae.models.checkpoint_archive import check_there
from solder_vae.utils.cli import command, parse
from solder_vae.utils.errors import UserError
from solder_vae.utils.plugins import import_plugins

USAGE = """\
Export a checkpoint as one graph: images in, score, label and heat map out.

  python -m solder_vae.export checkpoint=PATH out=FILE.onnx [format=onnx]

  checkpoint=PATH   best.ckpt of a run, or calibrated.ckpt of solder_vae.threshold
  out=FILE.onnx     the graph; preprocessing, threshold and heat map's unit are inside (docs/use/export.md)
  format=onnx       the only one

Needs the extra: pip install 'solder-vae[export]'. The graph is run by ONNX Runtime on 200 joints of the embedded data
set; unless it agrees with the checkpoint, no file is left.
"""


@dataclass(frozen=True)
class Options:
    checkpoint: str
    out: str
    format: str = "onnx"
    plugins: str = ""


def run(arguments: list[str]) -> int:
    """Export as the command line says; returns the exit status."""
    options = parse(Options, arguments, USAGE)
    out = Path(options.out)
    if options.format != "onnx":
        raise UserError(f"format={options.format} is unknown: use format=onnx.")
    if out.suffix != ".onnx":
        raise UserError(f"out={out} must end in .onnx: name the file so that runtimes know it.")
    if out.is_dir():
        raise UserError(f"out={out} is a folder: name a file.")
    check_there(Path(options.checkpoint))
    import_plugins(options.plugins)
    from solder_vae.utils.threads import busy

    with busy("Loading"):
        check_installed()
        import torch

        from solder_vae.inspection.inspector import Inspector
        from solder_vae.inspection.onnx.parity import compare, load_onnx
        from solder_vae.utils.files import atomic_file

        # Pictures pass one by one: several threads would spend ten times the processor time on waiting for each other.
        torch.set_num_threads(1)
        inspector = Inspector.load(options.checkpoint)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(out) as temporary:
            with busy("Writing the graph"):
                write_onnx(inspector, temporary)
            parity = compare(inspector, load_onnx(temporary))
            if not parity.holds:
                raise UserError(
                    f"The graph disagrees with {options.checkpoint}, so it was not kept ({parity}): "
                    "inspect with python -m solder_vae.predict, which needs no graph."
                )
    except OSError as error:
        raise UserError(f"out={out} can't be written ({error.strerror}): name another file.") from error
    print(f"Parity with the checkpoint on {parity}.")
    print(f"The graph is in {out} ({out.stat().st_size / 2**20:.1f} MiB).")
    return 0


def main() -> None:
    command(run)


if __name__ == "__main__":
    main()
