"""The inspector written as an ONNX graph."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from solder_vae import __version__
from solder_vae.utils.errors import UserError

if TYPE_CHECKING:
    from solder_vae.inspection.inspector import Inspector


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

    score = inspector.model.scores[inspector.primary]
    if not score.exportable:
        raise UserError(f"score={score.name} is not made for ONNX (exportable = False in {type(score).__module__}).")
    if any(each.within_types for each in inspector.model.chosen_scores([inspector.primary]).values()):
        raise UserError(
            f"score={score.name} compares joints within their component type, which the graph is not told: "
            "inspect with python -m solder_vae.predict, or train without data.type_regex."
        )
    if getattr(inspector.model, "own_noise", False):
        raise UserError(
            "score.noise=per_image is made from each image's bytes, which ONNX can't: use shared or the mean."
        )
    graph = InspectionGraph(inspector).eval()
    example = torch.zeros((2, 70, 90, 3), dtype=torch.uint8)
    sizes = {"images": {0: Dim("batch"), 1: Dim("height", min=2), 2: Dim("width", min=2)}}
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    with torch.no_grad(), warnings.catch_warnings():
        graph(example)  # the exporter needs constants, such as the upsampling's matrices, as plain numbers
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
        except Exception as error:
            if not inspector.model.plugins:
                raise
            raise UserError(
                f"model={inspector.model.name} with score={score.name} can't be written as an ONNX graph: operations "
                f"of {', '.join(inspector.model.plugins)} lack a counterpart there "
                f"({str(error).strip().splitlines()[0]})."
            ) from error
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
    """The graph's metadata, as text."""
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
        "thresholds_by_type": {kind: own.value for kind, own in inspector.own.items()} or None,
        "image_size": inspector.image_size,
        "view": inspector.view,
        "crop": inspector.crop,
        "heat_map_unit": inspector.map_scale,
        "labels": ["normal", "abnormal"],
        "input": "uint8 RGB, any size; cropped, resized and scaled inside",
    }
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items() if value is not None
    }
