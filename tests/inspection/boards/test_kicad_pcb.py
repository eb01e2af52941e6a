"""Pads out of KiCad's board file, against KiCad's own placement file of the same board and against complex numbers."""

import cv2
import numpy as np
import pytest

from solder_vae.inspection.boards.board import read_board
from solder_vae.inspection.boards.kicad_pcb import read_kicad_pcb
from solder_vae.inspection.boards.options import BoardOptions
from solder_vae.utils.errors import UserError

PADS = [("1", -1.0, 0.95, 0.0), ("2", -1.0, -0.95, 30.0), ("3", 1.0, 0.0, 90.0)]  # of a library's footprint, y up
SIZE = (1.0, 0.6)


def footprint(name, x, y, rotation, side, pads=PADS, attributes="smd", kind="smd", version=8):
    """As KiCad writes it: y down; flipped, a pad's y and angle change their sign; angles are the board's."""
    flip = -1 if side == "B" else 1
    reference = {
        8: f'(property "Reference" "{name}" (at 0 -2 {rotation}) (layer "{side}.SilkS"))',
        6: f'(fp_text reference "{name}" (at 0 -2) (layer "{side}.SilkS"))',
        5: f"(fp_text reference {name} (at 0 -2) (layer {side}.SilkS))",
    }[version]
    layers = f'"{side}.Cu" "{side}.Paste" "{side}.Mask"' if kind == "smd" else '"*.Cu" "*.Mask"'
    shapes = "".join(
        f'\n    (pad "{number}" {kind} roundrect (at {px} {-py * flip} {rotation + angle * flip})'
        f" (size {SIZE[0]} {SIZE[1]})"
        f'{" (drill 0.4)" if kind == "thru_hole" else ""} (layers {layers}) (roundrect_rratio 0.25) (net 1 "GND (x)"))'
        for number, px, py, angle in pads
    )
    head = "module" if version == 5 else "footprint"
    return (
        f'  ({head} "Package_TO_SOT_SMD:SOT-23" (layer "{side}.Cu")\n    (at {x} {-y} {rotation})\n    {reference}\n'
        f'    (fp_text value "a \\"quoted) value" (at 0 2) (layer "{side}.Fab"))\n'
        f"    (attr {attributes}){shapes}\n  )\n"
    )


def pcb(tmp_path, *footprints, setup="", name="board.kicad_pcb"):
    path = tmp_path / name
    zone = '(zone (net 1) (polygon (pts (xy 0 0) (xy 1 1)))) (gr_text "(" (at 1 1))'
    path.write_text(
        f'(kicad_pcb (version 20240108) (generator "pcbnew")\n  (setup {setup})\n{"".join(footprints)}{zone}\n)\n'
    )
    return path


def boxes(outlines):
    """The upright box about each joint: middle and size."""
    return {
        name: (complex(*(corners.min(axis=0) + corners.max(axis=0)) / 2), np.ptp(corners, axis=0))
        for name, corners, _ in outlines
    }


@pytest.mark.parametrize("version", [5, 6, 8])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90, 37])
@pytest.mark.parametrize("side", ["top", "bottom"])
def test_pads_lie_where_kicad_has_them(tmp_path, side, rotation, version):
    layer, flip = ("F", 1) if side == "top" else ("B", -1)
    path = pcb(tmp_path, footprint("Q1", 12, 8, rotation, layer, version=version))
    found = boxes(read_kicad_pcb(path, side)[0])
    assert list(found) == ["Q1.1", "Q1.2", "Q1.3"]
    for number, x, y, angle in PADS:
        middle, size = found[f"Q1.{number}"]
        expected = complex(12, 8) + complex(x, y * flip) * np.exp(1j * np.radians(rotation))
        assert middle == pytest.approx(expected, abs=1e-9)
        turn = np.radians(rotation + flip * angle)
        cos, sin = abs(np.cos(turn)), abs(np.sin(turn))
        np.testing.assert_allclose(size, [SIZE[0] * cos + SIZE[1] * sin, SIZE[0] * sin + SIZE[1] * cos], atol=1e-9)


@pytest.mark.parametrize("side", ["top", "bottom"])
def test_the_same_crops_as_by_placement_file(tmp_path, side):
    pads = [(number, x, y, 0.0) for number, x, y, _ in PADS]
    places = [("Q1", 106.0, -92.0, 0), ("Q2", 112.0, -92.0, 90), ("Q3", 118.0, -90.0, 180), ("Q4", 112.0, -97.0, 45)]
    board = pcb(
        tmp_path,
        *(footprint(*place, side[0].upper().replace("T", "F"), pads) for place in places),
        setup="(aux_axis_origin 100 100)",
    )
    rows = [f"{name},x,SOT-23,{x - 100},{y + 100},{rotation},{side}\n" for name, x, y, rotation in places]
    (tmp_path / "pos.csv").write_text("Ref,Val,Package,PosX,PosY,Rot,Side\n" + "".join(rows))
    rows = [f"SOT-23,{number},{x},{y},{SIZE[0]},{SIZE[1]}\n" for number, x, y, _ in pads]
    (tmp_path / "footprints.csv").write_text("Package,Pad,X,Y,Width,Height\n" + "".join(rows))
    cv2.imwrite(str(tmp_path / "board.png"), np.zeros((400, 600, 3), np.uint8))
    marks = [
        (x, y, 600 - 20 * x if side == "bottom" else 20 * x, 400 - 20 * y)
        for x, y in ((1, 1), (29, 1), (1, 19), (29, 19))
    ]
    rows = [f"F{x}{y},{x},{y},{column},{row}\n" for x, y, column, row in marks]
    (tmp_path / "fiducials.csv").write_text("name,board_x,board_y,pixel_x,pixel_y\n" + "".join(rows))
    common = {"board": str(tmp_path / "board.png"), "fiducials": str(tmp_path / "fiducials.csv"), "side": side}
    by_board = read_board(BoardOptions(pads=str(board), **common))
    by_table = read_board(
        BoardOptions(pads=str(tmp_path / "pos.csv"), footprints=str(tmp_path / "footprints.csv"), **common)
    )
    assert by_board.joints == by_table.joints
    assert len(by_board.joints) == 12
    with pytest.raises(UserError, match="has its pads: footprints and size do not apply"):
        read_board(BoardOptions(pads=str(board), size=1.0, **common))
    with pytest.raises(UserError, match="give fiducials=CSV"):
        read_board(BoardOptions(board=str(tmp_path / "board.png"), pads=str(board), side=side))


def test_what_is_no_joint_is_left_out(tmp_path):
    path = pcb(
        tmp_path,
        footprint("Q1", 12, 8, 0, "F"),
        footprint("Q2", 12, 8, 0, "B"),
        footprint("REF**", 1, 1, 0, "F"),
        footprint("REF**", 2, 1, 0, "F"),
        footprint("Q3", 20, 8, 0, "F", attributes="smd dnp"),
        footprint("TP1", 25, 8, 0, "F", attributes="smd exclude_from_pos_files"),
        footprint("H1", 3, 3, 0, "F", [("", 0, 0, 0)], "exclude_from_pos_files", "np_thru_hole"),
        footprint("FID1", 3, 3, 0, "F", [("", 0, 0, 0)]),
        footprint("U1", 3, 9, 0, "F", [("9", 0, 0, 0), ("9", 0.1, 0, 0)], "smd", "thru_hole"),  # thermal vias
        footprint("J1", 3, 9, 0, "F", [("1", 0, 0, 0)], "through_hole", "thru_hole"),
    )
    outlines, left_out = read_kicad_pcb(path, "top")
    assert [name for name, *_ in outlines] == ["Q1.1", "Q1.2", "Q1.3"]
    assert left_out == "Left out: 2 components without a designator, 2 components not placed."
    # The solder of a part with leads is on the other side.
    assert {outline.package for outline in outlines} == {"SOT-23"}
    assert [name for name, *_ in read_kicad_pcb(path, "bottom")[0]] == ["Q2.1", "Q2.2", "Q2.3", "J1.1"]


def test_custom_shapes_offsets_and_pads_of_one_number(tmp_path):
    pads = """(pad "1" smd custom (at 0 0 90) (size 0.5 0.5) (layers "F.Cu") (primitives
      (gr_poly (pts (xy 0 0) (xy 2 0) (xy 2 1)) (width 0) (fill yes))
      (gr_circle (center -1 0) (end -1 0.4) (width 0.2))))
      (pad "2" smd rect (at 5 0 90) (size 1 1) (drill (offset 1 0)) (layers "F.Cu"))
      (pad "2" smd rect (at 7 0) (size 1 1) (layers "F.Cu"))"""
    path = pcb(
        tmp_path, f'(footprint "x" (layer "F.Cu") (at 0 0 unlocked) (property "Reference" "U1") (attr smd) {pads})'
    )
    found = boxes(read_kicad_pcb(path, "top")[0])
    assert list(found) == ["U1.1", "U1.2", "U1.2-2"]
    # In the pad's x the circle reaches from -1.5, the polygon to 2; in its y, up, from -1 to 0.5. 90 degrees turn
    # x to y and y to -x.
    np.testing.assert_allclose([found["U1.1"][0].real, found["U1.1"][0].imag], [0.25, 0.25])
    np.testing.assert_allclose(found["U1.1"][1], [1.5, 3.5])
    assert found["U1.2"][0] == pytest.approx(5 + 1j)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no whole board file"),
        ("(kicad_pcb (version 5)", "no whole board file"),
        ("(kicad_sch (version 5))", "no whole board file"),
        ("(kicad_pcb (version 5))", "shows no joint on side=top"),
        ("PCBNEW-BOARD Version 1 date", "KiCad 4 or older"),
        ('(kicad_pcb (footprint "x" (at 0 0)))', "a footprint has no layer"),
        ("(kicad_pcb (setup (aux_axis_origin x)))", "'x' where a number belongs"),
        (footprint("Q1", 1, 1, 0, "F") * 2, "Q1 is there twice"),
        (footprint("Q1", 1, 1, 0, "F").replace("(attr smd)", "(attr (smd))").replace("(at 1 -1 0)", "(at)"), "no at"),
        (
            footprint("Q1", 1, 1, 0, "F").replace('"F.Mask")', "(x))").replace("size 1.0", "size (x)"),
            "a number belongs",
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "x.kicad_pcb"
    path.write_text(f"(kicad_pcb {content})" if content.startswith("  (") else content)
    with pytest.raises(UserError, match=message):
        read_kicad_pcb(path, "top")
