"""The inspector written as an ONNX graph."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from solder_vae import __version__
from solder_vae.utils.errors import UserError

if TYPE_CHECKING:
    from onnxscript import ir

    from solder_vae.inspection.inspector import Inspector

_COLOUR = re.compile(r"\x1b\[[\d;]*m")  # in the exporter's messages


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
        told = "on a manifest without the column type" if inspector.type_regex is None else "without data.type_regex"
        raise UserError(
            f"score={score.name} compares joints within their component type, which the graph is not told: "
            f"inspect with python -m solder_vae.predict, or train {told}."
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
            with scripts_as_programs(inspector):
                program = torch.onnx.export(
                    graph,
                    (example,),
                    dynamo=True,
                    input_names=["images"],
                    output_names=list(OUTPUTS),
                    dynamic_shapes=sizes,
                    external_data=False,
                    verbose=False,
                    optimize=False,
                )
        except UserError:
            raise
        except Exception as error:
            if not inspector.model.plugins:
                raise
            cause = _COLOUR.sub("", str(error.__cause__ or error)).strip().partition("\n")[0]
            raise UserError(
                f"model={inspector.model.name} with score={score.name} can't be written as an ONNX graph: operations "
                f"of {', '.join(inspector.model.plugins)} lack a counterpart there ({cause.rstrip('.')})."
            ) from error
        finally:
            chatter.setLevel(level)
    assert program is not None
    simplify(program.model)
    proto = program.model_proto
    proto.producer_name, proto.producer_version = "solder_vae", __version__
    proto.doc_string = "Solder joint inspection: images (B, H, W, 3) uint8 RGB to score, label and heat map."
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, metadata(inspector))
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


def simplify(model: ir.Model) -> None:
    """Fold the constants of a graph as it was traced, and merge what is computed twice; in place.

    The exporter's own optimization searches the whole graph for patterns to rewrite once for each node, a third of an
    export's time. ONNX Runtime does that, too, whenever it loads a graph.
    """
    from onnxscript import ir, optimizer

    common = ir.passes.common
    optimizer.inline(model)
    optimizer.fold_constants_ir(model)
    optimizer.remove_unused_nodes(model)
    ir.passes.Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )(model)


@contextmanager
def scripts_as_programs(inspector: Inspector) -> Iterator[None]:
    """Within it, a backbone's TorchScript file is a program that the exporter can trace, which it can't the file.

    Raises:
        UserError: torch can't turn it into one.
    """
    import torch

    from solder_vae.models.backbone import Backbone, Script

    model = inspector.model
    if not isinstance(model, Backbone) or not isinstance(model.network, Script):
        yield
        return
    network, side = model.network, max(model.size, inspector.image_size)
    try:
        from torch._export.converter import TS2EPConverter  # not public, but torch has no other way

        converter = TS2EPConverter(network.script, (torch.zeros(2, 3, side, side),))
        program = converter.convert().module()
    except Exception as error:
        raise UserError(
            f"model.network={model.hparams['network']} is TorchScript that torch can't turn into an ONNX graph: train "
            "with the network as Python code, model.network={_target_: module.name}, or inspect with "
            "python -m solder_vae.predict."
        ) from error
    model.network = program
    try:
        yield
    finally:
        model.network = network


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
