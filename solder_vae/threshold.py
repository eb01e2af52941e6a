"""``python -m solder_vae.threshold``: another threshold for a trained checkpoint, without training."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from solder_vae.metrics.threshold import Rule, make_rule
from solder_vae.utils.checks import check_choice
from solder_vae.utils.cli import command, parse
from solder_vae.utils.errors import UserError
from solder_vae.utils.files import atomic_directory, check_new
from solder_vae.utils.plugins import import_plugins

USAGE = """\
Set the threshold of a trained checkpoint anew, without training, and show what it costs.

  python -m solder_vae.threshold checkpoint=PATH rule=RULE ... [normals=PATH] [memory=add|replace] [labelled=PATH]
                                 [score=NAME] [out=DIR]
  python -m solder_vae.threshold checkpoint=PATH show=true

{rules}

  score=NAME        the score that decides from now on, if another of the checkpoint's
  normals=PATH      good joints of today (folder, pattern or CSV with a column path) to calibrate on instead of the
                    validation normals in the checkpoint: for another camera, light or board; joints that a folder
                    beside normal/ or the column label calls bad are left out
  memory=keep       what knn, mahalanobis and combined compare with: keep it, add the normals to it (so that what looks
                    like them is no longer called), or replace it by them; their thresholds then come from comparing
                    each normal with all others; add without normals= takes the good joints of labelled=, such as false
                    calls, and leaves the thresholds to the checkpoint's normals
  labelled=PATH     good and bad joints to count false calls and escapes on: folders normal/ and one for each type of
                    defect, or a CSV file with the columns path and label, such as the report's verdicts
  normal=NAME,...   names of its normal class, if not normal, good or ok
  out=DIR           a new folder for calibrated.ckpt, trade_off.csv and trade_off.png;
                    without it, one named after the rule beside the checkpoint
  show=true         the threshold and the checkpoint's log: trained when and on what, what set its thresholds, what its
                    memory was extended by; nothing is written
  plugins=MODULES   modules of yours that define rules, or what the checkpoint was trained with, separated by commas;
                    with --help, their rules are shown, too

The checkpoint given is never changed. Exit status as for solder_vae.predict.
"""

MEMORIES = ("keep", "add", "replace")


@dataclass(frozen=True)
class Options:
    """What can be given besides the rule's own parameters."""

    checkpoint: str
    rule: str = ""
    score: str | None = None
    normals: str | None = None
    memory: str = "keep"
    labelled: str | None = None
    normal: str | None = None
    out: str | None = None
    plugins: str = ""
    show: bool = False


def usage() -> str:
    """The help, with every rule that is known."""
    rules = []
    for name, kind in Rule.registry.items():
        words = [f"rule={name}"]
        words += [
            f"{each.name}={'NUMBER' if each.default is MISSING else f'{each.default:g}'}" for each in fields(kind)
        ]
        words += ["labelled=PATH"] * kind.needs_labelled
        summary = (inspect.getdoc(kind) or "").partition("\n")[0]
        rules += [f"  {' '.join(words)}", f"      {summary}"]
    return USAGE.format(rules="\n".join(rules))


def read(arguments: list[str]) -> tuple[Options, Rule | None, Path]:
    """The options, the rule (None to show the checkpoint alone), and where to write.

    Raises:
        UserError: a plugin can't be imported, what :func:`~solder_vae.utils.cli.parse` and
            :func:`~solder_vae.metrics.threshold.make_rule` refuse, or the rule needs a labelled set and there is none.
    """
    for argument in arguments:
        if argument.startswith("plugins="):
            import_plugins(argument.removeprefix("plugins="))
    own = {each.name for each in fields(Options)}
    parameters: dict[str, tuple[str, Any, Any]] = {}
    # The rule that is asked for comes last: what it says of a parameter's type counts.
    for kind in sorted(Rule.registry.values(), key=lambda kind: f"rule={kind.name}" in arguments):
        hints = get_type_hints(kind)
        parameters |= {each.name: (each.name, hints[each.name], field(default=None)) for each in fields(kind)}
    surplus = [parameters[name] for name in parameters if name not in own]
    schema: type[Any] = make_dataclass("WithParameters", surplus, bases=(Options,), frozen=True)
    options = parse(schema, arguments, usage())
    if options.show:
        return options, None, Path()
    if not options.rule:
        raise UserError("rule=... must be given: --help shows an example.")
    given = {name: getattr(options, name) for name in parameters if getattr(options, name) is not None}
    rule = make_rule(options.rule, **given)
    if rule.needs_labelled and options.labelled is None:
        raise UserError(
            f"rule={rule.name} needs labelled=PATH: good and bad joints to count false calls and escapes on."
        )
    check_choice("memory", options.memory, MEMORIES)
    if options.memory != MEMORIES[0] and options.normals is None:
        if options.memory == "replace":
            raise UserError("memory=replace needs normals=PATH: the good joints to compare with from now on.")
        if options.labelled is None:
            raise UserError(
                "memory=add needs normals=PATH or labelled=PATH: good joints to compare with from now on, too."
            )
    checkpoint = Path(options.checkpoint)
    parts = [checkpoint.stem, rule.name, *(f"{number:g}" for number in given.values())]
    parts[1:1] = [options.score] * (options.score is not None)
    named = checkpoint.with_name("_".join(parts + [options.memory] * (options.memory != MEMORIES[0])))
    return options, rule, named if options.out is None else Path(options.out)


def run(arguments: list[str]) -> int:
    """Recalibrate as the command line says; returns the exit status."""
    options, rule, out = read(arguments)
    # Imported where they are needed, so that --help and mistakes are answered at once: first those without torch.
    from solder_vae.data.layouts import normal_names
    from solder_vae.data.names import NORMAL_NAMES
    from solder_vae.inspection.joints import check_labelled, check_named
    from solder_vae.models.checkpoint_archive import check_there

    if rule is None:
        check_there(Path(options.checkpoint))
        from solder_vae.inspection.shown import shown

        print("\n".join(shown(options.checkpoint)))
        return 0

    normal = normal_names(NORMAL_NAMES if options.normal is None else options.normal.split(","), "normal")
    check_new(out)
    check_there(Path(options.checkpoint))
    if options.normals is not None:
        check_named("normals", options.normals)
    if options.labelled is not None:
        check_labelled(options.labelled)

    from solder_vae.utils.threads import busy

    with busy("Loading"):
        from solder_vae.inspection.recalibration import recalibrate

    given = (options.normals, options.labelled, normal, options.memory, options.score)
    recalibration = recalibrate(options.checkpoint, rule, *given)
    with atomic_directory(out) as directory, busy("Writing"):
        recalibration.write(directory)
    recalibration.print_summary(out)
    return recalibration.status


def main() -> None:
    command(run)


if __name__ == "__main__":
    main()
