"""Which rows of a placement file are joints of a picture, and how those of the bottom lie."""

import csv

import cv2
import numpy as np
import pytest
from cases import CASES, needs_cases

from solder_vae.inspection.boards.board import read_board
from solder_vae.inspection.boards.options import BoardOptions
from solder_vae.utils.errors import UserError

SCALE = 20  # pixels per millimetre
HEIGHT = 400

PADS = [("1", -1.0, 0.95), ("2", -1.0, -0.95), ("3", 1.0, 0.0)]  # of a SOT-23, which looks the same from no two sides


@pytest.fixture
def board(tmp_path):
    """Reads a board of 30 x 20 mm seen from either side, by a placement file's text."""
    cv2.imwrite(str(tmp_path / "board.png"), np.zeros((HEIGHT, 600, 3), np.uint8))
    (tmp_path / "footprints.csv").write_text(
        "Package,Pad,X,Y,Width,Height\n" + "".join(f"SOT-23,{name},{x},{y},1.0,0.8\n" for name, x, y in PADS)
    )

    def read(placement, side="top", name="placement.csv", **options):
        (tmp_path / name).write_text(placement)
        marks = [
            (x, y, (600 - SCALE * x if side == "bottom" else SCALE * x))
            for x, y in ((1, 1), (29, 1), (1, 19), (29, 19))
        ]
        (tmp_path / "fiducials.csv").write_text(
            "name,board_x,board_y,pixel_x,pixel_y\n"
            + "".join(f"F{x}{y},{x},{y},{pixel},{HEIGHT - SCALE * y}\n" for x, y, pixel in marks)
        )
        files = {"footprints": str(tmp_path / "footprints.csv")} if "size" not in options else {}
        return read_board(
            BoardOptions(
                board=str(tmp_path / "board.png"),
                pads=str(tmp_path / name),
                fiducials=str(tmp_path / "fiducials.csv"),
                side=side,
                **files,
                **options,
            )
        )

    return read


KICAD = "Ref,Val,Package,PosX,PosY,Rot,Side\n"


def middles(board):
    """Each joint's middle on the board, in millimetres from the left lower corner of the picture."""
    return {
        joint.name: ((joint.x + joint.width / 2) / SCALE, (HEIGHT - joint.y - joint.height / 2) / SCALE)
        for joint in board.joints
    }


@pytest.mark.parametrize("rotation", [0, 90, 180, 270, -90, 45])
@pytest.mark.parametrize("side", ["top", "bottom"])
def test_kicads_rotation_on_either_side(board, side, rotation):
    """By complex numbers: KiCad's flip keeps a pad's x and negates its y, then Rot turns as on the top."""
    found = middles(board(f"{KICAD}Q1,BC847,SOT-23,12,8,{rotation},{side}\n", side))
    for name, x, y in PADS:
        offset = complex(x, -y if side == "bottom" else y) * np.exp(1j * np.radians(rotation))
        place = complex(12, 8) + offset
        seen = 30 - place.real if side == "bottom" else place.real  # from below, the board's x runs to the left
        np.testing.assert_allclose(found[f"Q1.{name}"], (seen, place.imag), atol=1 / SCALE)


@pytest.mark.parametrize("rotation", [0, 90, 180, 30])
@pytest.mark.parametrize(("tool", "sense"), [("eagle", -1), ("librepcb", 1)])
def test_other_tools_turn_the_bottom_their_way(board, tool, sense, rotation):
    """Both mirror x, not y: Eagle after it has turned the part, LibrePCB before."""
    placement, name = {
        "eagle": (f"Q1 12.00 8.00 {rotation} BC847 SOT-23\n", "board.mnb"),
        "librepcb": (
            "# Generation Software: LibrePCB 1.2.0\n\nDesignator,Package,Position X,Position Y,Rotation,Side\n"
            f"Q1,SOT-23,12.0,8.0,{rotation},Bottom\n",
            "board.csv",
        ),
    }[tool]
    found = middles(board(placement, "bottom", name))
    for pad, x, y in PADS:
        place = complex(12, 8) + complex(-x, y) * np.exp(1j * np.radians(sense * rotation))
        np.testing.assert_allclose(found[f"Q1.{pad}"], (30 - place.real, place.imag), atol=1 / SCALE)


def test_a_bottom_whose_rotations_are_not_documented_is_refused(board):
    placement = "Designator,Footprint,Mid X,Mid Y,Layer,Rotation\nQ1,SOT-23,12mm,8mm,B,0\n"
    with pytest.raises(UserError, match=r"how its tool counts rotations on the bottom is not documented; give size=MM"):
        board(placement, "bottom")
    assert len(board(placement, "bottom", size=2.0).joints) == 1
    with pytest.raises(UserError, match="names no packages: give size=MM"):
        board(placement.replace("Footprint", "Comment"), "bottom")


@needs_cases
def test_kicads_bottom_as_it_was_measured():
    case = CASES / "kicad-bottom-side"
    board = read_board(
        BoardOptions(
            board=str(case / "board-from-below.png"),
            pads=str(case / "bottom-pos.csv"),
            fiducials=str(case / "fiducials.csv"),
            footprints=str(case / "footprints.csv"),
            side="bottom",
        )
    )
    with (case / "expected-boxes.csv").open(newline="") as file:
        expected = [tuple(row.values()) for row in csv.DictReader(file)]
    assert [tuple(map(str, vars(joint).values()))[:5] for joint in board.joints] == expected
    assert {joint.type for joint in board.joints} == {"SOT-23"}


HOLES = "REF**,Hole,MountingHole,3,3,0,{0}\nREF**,Hole,MountingHole,27,3,0,{0}\nREF**,Logo,Logo,9,3,0,{0}\n"


@pytest.mark.parametrize(
    ("others", "told"),
    [
        (HOLES.format("top"), "Left out: 3 whose package has no footprint."),
        (HOLES.format("bottom"), "Left out: 3 components on the other side."),
        ("Q1,BC847,SOT-23,20,8,0,bottom\n", "Left out: 1 components on the other side."),
        (",Logo,Logo,9,3,0,top\n,Logo,Logo,9,4,0,top\n", "Left out: 2 whose package has no footprint."),
    ],
)
def test_rows_that_are_no_joint_do_not_block_a_board(board, others, told):
    read = board(f"{KICAD}Q1,BC847,SOT-23,12,8,0,top\n{others}")
    assert [(joint.name, joint.type) for joint in read.joints] == [(f"Q1.{pad}", "SOT-23") for pad in (1, 2, 3)]
    assert told in str(read)


def test_without_footprints_rows_without_a_designator_are_left_out(board):
    read = board(f"{KICAD}TP1,x,TestPoint,12,8,0,top\n{HOLES.format('top')}", size=2.0)
    assert [(joint.name, joint.type) for joint in read.joints] == [("TP1", "TestPoint")]
    assert "Left out: 3 without a designator." in str(read)
    with pytest.raises(UserError, match=r"no designators on side=top, only REF\*\*"):
        board(KICAD + HOLES.format("top"), size=2.0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Q1,BC847,SOT-23,20,8,0,top\n", "line 4: Q1 is there twice"),
        (",BC847,SOT-23,20,8,0,top\n", "line 4: .* no name"),
    ],
)
def test_joints_that_cannot_be_told_apart_are_refused(board, row, message):
    with pytest.raises(UserError, match=message):
        board(f"{KICAD}Q1,BC847,SOT-23,12,8,0,top\n{HOLES.format('top').splitlines()[0]}\n{row}")


@needs_cases
@pytest.mark.parametrize("name", ["kicad_bothsides_same.csv", "kicad_refs.csv"])
def test_cases_with_rows_that_are_no_joint(board, name, tmp_path):
    (tmp_path / "footprints.csv").write_text("Package,Pad,X,Y,Width,Height\nSO8,1,0,0,1,1\nC0603,1,0,0,1,1\n")
    assert len(board((CASES / "placement-files" / name).read_text()).joints) == 17
