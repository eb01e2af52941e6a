"""The options that crop and predict share: where the joints of a board's picture are."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

BOARD_USAGE = """\
  board=IMAGE       picture of the board
  pads=CSV          where the joints are: name,x,y,width,height in pixels; or a placement file as KiCad, Altium, Eagle
                    and others write it, or a .kicad_pcb, which also need:
  fiducials=CSV     three or more marks: name,board_x,board_y,pixel_x,pixel_y
  footprints=CSV    each package's pads: Package,Pad,X,Y,Width,Height in millimetres, y up; a joint for each pad ...
  size=MM           ... or without: one square of this size for each row of the placement file
  fit=affine        or homography (four fiducials or more), for a tilted camera
  side=top          or bottom: which components the picture shows
  margin=0          widens each box all round by this share of its short side
"""


@dataclass(frozen=True)
class BoardOptions:
    """The options that say where the joints of a board picture are, see :data:`BOARD_USAGE`."""

    _: KW_ONLY
    board: str = ""
    pads: str = ""
    fiducials: str = ""
    footprints: str = ""
    size: float | None = None
    fit: str = "affine"
    side: str = "top"
    margin: float = 0.0
