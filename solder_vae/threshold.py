"""``python -m solder_vae.threshold``: another threshold for a trained checkpoint, without training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from solder_vae.utils.cli import command, parse
from solder_vae.utils.files import atomic_directory, check_new

USAGE = """\
Set the threshold of a trained checkpoint anew, without training, and show what it costs.

  python -m solder_vae.threshold checkpoint=PATH rule=RULE ... [normals=PATH] [labelled=PATH] [out=DIR]

  rule=quantile q=0.95                the q-quantile of the normals' scores
  rule=sigma k=2                      their mean plus k standard deviations
  rule=false_call_rate rate=0.05      at most this share of good joints is called, however few normals there are
  rule=fixed value=NUMBER             this threshold
  rule=cost escape_cost=NUMBER prevalence=SHARE labelled=PATH
                                      least expected cost: an escape costs as much as escape_cost false calls, and
                                      that share of the line's joints is bad; needs a labelled set

  normals=PATH      good joints of today (folder, pattern or CSV with a column path) to calibrate on instead of the
                    validation normals in the checkpoint: for another camera, light or board
  labelled=PATH     good and bad joints (any layout of data.root) to count escapes on
  out=DIR           a new folder for calibrated.ckpt, trade_off.csv and trade_off.png;
                    without it, one named after the rule beside the checkpoint

The checkpoint given is never changed. Exit status as for solder_vae.predict.
"""


@dataclass(frozen=True)
class Options:
    checkpoint: str
    rule: str
    q: float | None = None
    k: float | None = None
    rate: float | None = None
    value: float | None = None
    escape_cost: float | None = None
    prevalence: float | None = None
    normals: str | None = None
    labelled: str | None = None
    out: str | None = None

    @property
    def parameters(self) -> dict[str, float]:
        """The rule's parameters as far as given."""
        names = ("q", "k", "rate", "value", "escape_cost", "prevalence")
        given = {name: getattr(self, name) for name in names}
        return {name: number for name, number in given.items() if number is not None}

    @property
    def directory(self) -> Path:
        """Where to write."""
        if self.out is not None:
            return Path(self.out)
        checkpoint = Path(self.checkpoint)
        numbers = [f"{number:g}" for number in self.parameters.values()]
        return checkpoint.with_name("_".join([checkpoint.stem, self.rule, *numbers]))


def run(arguments: list[str]) -> int:
    """Recalibrate as the command line says; returns the exit status."""
    options = parse(Options, arguments, USAGE)
    # Imported where they are needed, so that --help and mistakes are answered at once: first those without torch.
    from solder_vae.inspection.rule_options import check_options
    from solder_vae.models.checkpoint_archive import check_there

    check_options(options.rule, options.parameters, options.labelled)
    out = options.directory
    check_new(out)
    check_there(Path(options.checkpoint))

    from solder_vae.inspection.recalibration import recalibrate

    recalibration = recalibrate(options.checkpoint, options.rule, options.parameters, options.normals, options.labelled)
    with atomic_directory(out) as directory:
        recalibration.write(directory)
    recalibration.print_summary(out)
    return recalibration.status


def main() -> None:
    command(run)


if __name__ == "__main__":
    main()
