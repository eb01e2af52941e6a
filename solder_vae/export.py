"""``python -m solder_vae.export``: a checkpoint as one ONNX graph from camera pixels to the decision.

The graph is compared with the checkpoint before it takes its final name, see :mod:`solder_vae.inspection.onnx.parity`.
"""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from solder_vae import __version__
from solder_vae.utils.cli import command, parse
from solder_vae.utils.errors import UserError

if TYPE_CHECKING:
    from solder_vae.inspection.inspector import Inspector

USAGE = """\
Export a checkpoint as one graph: images in, score, label and heat map out.

  python -m solder_vae.export checkpoint=PATH out=FILE.onnx [format=onnx]

  checkpoint=PATH   best.ckpt of a training, or what solder_vae.metrics.threshold wrote
  out=FILE.onnx     the graph; preprocessing, threshold and heat map's unit are inside (docs/export.md)
  format=onnx       the only one

Needs the extra: pip install 'solder-vae[export]'. The graph is run by ONNX Runtime on 200 joints of the embedded data
set; unless it agrees with the checkpoint, no file is left.
"""


@dataclass(frozen=True)
class Options:
    checkpoint: str
    out: str
    format: str = "onnx"


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
    check_installed()
    import torch

    from solder_vae.inspection.inspector import Inspector
    from solder_vae.inspection.onnx.parity import compare, latency_table, load_onnx
    from solder_vae.utils.files import replacing

    inspector = Inspector.load(options.checkpoint)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            write_onnx(inspector, temporary)
            graph = load_onnx(temporary, torch.get_num_threads())
            parity = compare(inspector, graph)
            if not parity.holds:
                raise UserError(f"The graph disagrees with {options.checkpoint}, so it was not kept ({parity}).")
    except OSError as error:
        raise UserError(f"out={out} can't be written ({error.strerror}): name another file.") from error
    print(f"Parity with the checkpoint on {parity}.")
    print(latency_table(inspector, graph, torch.get_num_threads()))
    print(f"The graph is in {out} ({out.stat().st_size / 2**20:.1f} MiB).")
    return 0


def check_installed() -> None:
    """Check that what the export needs is there.

    Raises:
        UserError: it is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # type: ignore[import-untyped]  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'solder-vae[export]'.") from error


def write_onnx(inspector: Inspector, path: Path) -> None:
    """Write the inspector as an ONNX graph.

    One input, ``images``: ``(batch, height, width, 3)`` uint8 RGB, all three sizes free. Outputs: see
    :meth:`solder_vae.inspection.onnx.graph.InspectionGraph.forward`.
    """
    import onnx
    import torch
    from torch.export import Dim

    from solder_vae.inspection.onnx.graph import OUTPUTS, InspectionGraph

    graph = InspectionGraph(inspector).eval()
    example = torch.zeros((2, 70, 90, 3), dtype=torch.uint8)
    sizes = {"images": {0: Dim("batch"), 1: Dim("height", min=2), 2: Dim("width", min=2)}}
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    with torch.no_grad(), warnings.catch_warnings():
        graph(example)  # constants that are made once, such as the upsampling's matrices, are to be made of numbers
        warnings.simplefilter("ignore")
        chatter.setLevel(logging.ERROR)  # it misses optional packages
        try:
            program = torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                input_names=["images"],
                output_names=list(OUTPUTS),
                dynamic_shapes=sizes,
                external_data=False,
                verbose=False,
            )
        finally:
            chatter.setLevel(level)
    assert program is not None
    proto = program.model_proto
    proto.producer_name, proto.producer_version = "solder_vae", __version__
    proto.doc_string = "Solder joint inspection: images (B, H, W, 3) uint8 RGB to score, label and heat map."
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, metadata(inspector))
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


def metadata(inspector: Inspector) -> dict[str, str]:
    """What a reader of the graph may want to know, as text."""
    model, threshold = inspector.model, inspector.threshold
    facts = {
        "version": __version__,
        "model": model.name,
        "beta": getattr(model, "beta", None),
        "score": inspector.primary,
        "threshold": threshold.value,
        "rule": threshold.rule,
        "rule_params": threshold.params,
        "expected_false_call_rate": threshold.expected_false_call_rate,
        "image_size": inspector.image_size,
        "view": inspector.view,
        "heat_map_unit": inspector.map_scale,
        "labels": ["normal", "abnormal"],
        "input": "uint8 RGB, any size; cropped, resized and scaled inside",
    }
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items() if value is not None
    }


def main() -> None:
    command(run)


if __name__ == "__main__":
    main()
