"""Cutting joints out of a board's picture: where the crops lie, what is refused, what predict draws."""

import csv
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from checkpoints import write_checkpoint
from hypothesis import given
from hypothesis import strategies as st

from solder_vae import crop, predict
from solder_vae.data.folder import FolderSource
from solder_vae.data.image_files import read_image
from solder_vae.data.synthetic.board.__main__ import write_board
from solder_vae.data.synthetic.board.layout import PACKAGES, inspection_window
from solder_vae.data.synthetic.board.scene import render_board
from solder_vae.inspection.boards.board import Board, BoardJoint, read_board
from solder_vae.inspection.boards.crops import file_names
from solder_vae.inspection.boards.options import BoardOptions
from solder_vae.inspection.boards.picture import boxes_on_board, predictions_on_board, verdicts_on_board
from solder_vae.utils.errors import UserError


@pytest.fixture(scope="module")
def picture():
    return render_board(seed=0)


@pytest.fixture(scope="module")
def folder(picture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    write_board(picture, folder)
    return folder


@pytest.fixture
def options(folder):
    """Builds the options of the rendered board's files, by placement unless told otherwise."""

    def build(**changes):
        files = {
            "board": "board.png",
            "pads": "centroid.csv",
            "fiducials": "fiducials.csv",
            "footprints": "footprints.csv",
        }
        files = {key: str(folder / name) for key, name in files.items()}
        return BoardOptions(**{**files, **changes})

    return build


def true_centers(picture):
    """Middle of each joint's inspected box in pixels, by complex numbers rather than matrices."""
    centers = {}
    for part in picture.components:
        package = PACKAGES[part.package]
        for pad in range(2 * package.count):
            offset = complex(*inspection_window(package, pad))
            place = complex(part.x, part.y) + offset * np.exp(1j * np.radians(part.rotation))
            centers[f"{part.name}.{pad + 1}"] = np.array(picture.pixels(place.real, place.imag))
    return centers


def centers(board):
    return {box.name: np.array([box.x + box.width / 2, box.y + box.height / 2]) for box in board.joints}


def table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# where the crops lie


@pytest.mark.slow
def test_crops_lie_on_the_joints(picture, options):
    truth = true_centers(picture)
    by_placement = read_board(options())
    by_boxes = read_board(options(pads=options().pads.replace("centroid", "pads"), fiducials="", footprints=""))
    for board in (by_placement, by_boxes):
        assert centers(board).keys() == truth.keys() == picture.defects.keys()
        assert max(np.abs(centers(board)[name] - truth[name]).max() for name in truth) <= 1
    assert by_placement.registration.residuals.max() < 0.02
    # What the boxes hold is metal: beside what it mirrors darkly, it burns out.
    for joint, pixels in zip(by_placement.joints, by_placement.crops(), strict=True):
        if picture.defects[joint.name] == "normal":
            assert np.quantile(pixels, 0.9) > picture.image.mean() + 50


def test_homography_undoes_a_tilted_camera(picture, folder, options, tmp_path):
    height, width = picture.image.shape[:2]
    corners = np.float32([[0, 0], [width, 0], [width, height], [0, height]])
    tilt = cv2.getPerspectiveTransform(corners, np.float32([[60, 40], [890, 70], [width, 700], [10, height]]))
    tilted = cv2.warpPerspective(picture.image, tilt, (width, height))
    cv2.imwrite(str(tmp_path / "tilted.png"), tilted[..., ::-1])

    def through(points):
        return cv2.perspectiveTransform(np.float64(points)[None], tilt)[0]

    rows = [
        [name, x, y, *through([picture.pixels(x, y)])[0]]
        for name, (x, y) in {**picture.fiducials, "C5": (10.0, 8.0)}.items()
    ]
    marks = table(tmp_path / "marks.csv", [["name", "board_x", "board_y", "pixel_x", "pixel_y"], *rows])
    board = read_board(options(board=str(tmp_path / "tilted.png"), fiducials=marks, fit="homography"))
    assert board.registration.residuals.max() < 0.01
    truth = true_centers(picture)
    assert max(np.abs(at - through([truth[name]])[0]).max() for name, at in centers(board).items()) < 1.5
    with pytest.raises(UserError, match="fit=homography"):
        read_board(options(board=str(tmp_path / "tilted.png"), fiducials=marks))


def test_size_stands_in_for_footprints_and_margin_widens(options):
    plain = read_board(options(footprints="", size=2.0))
    wide = read_board(options(footprints="", size=2.0, margin=0.25))
    assert len(plain.joints) == 17  # components, not their joints
    for small, large in zip(plain.joints, wide.joints, strict=True):
        assert large.width == pytest.approx(1.5 * small.width, abs=2)
        assert large.x + large.width / 2 == pytest.approx(small.x + small.width / 2, abs=1)


def test_other_side_is_left_out_and_seen_from_below_mirrored(folder, options, tmp_path):
    header, *rows = read(folder / "centroid.csv")
    turned = [[*row[:-1], "B.Cu" if row[0] == "U1" else "F.Cu"] for row in rows]
    pads = table(tmp_path / "both.csv", [header, *turned])
    top = read_board(options(pads=pads))
    assert len(top.joints) == 46 - 8
    assert "1 components on the other side" in str(top)
    with pytest.raises(UserError, match="from the top, yet side=bottom"):
        read_board(options(pads=pads, side="bottom"))
    # A picture from below shows everything mirrored.
    width = top.image.shape[1]
    header, *rows = read(folder / "fiducials.csv")
    at = header.index("pixel_x")
    mirrored = [[*row[:at], str(width - float(row[at])), *row[at + 1 :]] for row in rows]
    fiducials = table(tmp_path / "mirrored.csv", [header, *mirrored])
    bottom = centers(read_board(options(pads=pads, side="bottom", fiducials=fiducials)))
    as_top = centers(read_board(options()))
    # Turned over about its own horizontal axis, each column of pads changes ends.
    for upper, lower in ((1, 4), (2, 3), (8, 5), (7, 6)):
        x, y = as_top[f"U1.{lower}"]
        np.testing.assert_allclose(bottom[f"U1.{upper}"], (width - x, y), atol=1)


def test_names_once_and_rotations_in_degrees(folder, options, tmp_path):
    header, *rows = read(folder / "centroid.csv")
    with pytest.raises(UserError, match="is there twice"):
        read_board(options(pads=table(tmp_path / "twice.csv", [header, *rows, rows[0]])))
    at = [name.lower() for name in header].index("rot")
    radians = [[*row[:at], str(np.radians(float(row[at]) or 90)), *row[at + 1 :]] for row in rows]
    with pytest.raises(UserError, match="radians"):
        read_board(options(pads=table(tmp_path / "radians.csv", [header, *radians])))
    bad = (("a,1_0,10,30,30", "plain number"), (",9,9,30,30", "no name"), ("a,1e308,0,1e308,30", "far off"))
    for row, problem in bad:
        boxes = tmp_path / "boxes.csv"
        boxes.write_text(f"name,x,y,width,height\n{row}\n")
        with pytest.raises(UserError, match=problem):
            read_board(BoardOptions(board=str(folder / "board.png"), pads=str(boxes)))


# the command


def run_crop(options, out, **changes):
    values = {key: value for key, value in vars(options(**changes)).items() if value not in ("", None)}
    return crop.run([*(f"{key}={value}" for key, value in values.items()), f"out={out}"])


def test_command_writes_the_very_pixels(options, folder, tmp_path, capsys):
    assert run_crop(options, tmp_path / "out") == 0
    told = capsys.readouterr().out
    assert re.search(r"F1 +0\.0\d px", told)
    assert "46 joints" in told
    header, *rows = read(tmp_path / "out/crops.csv")
    typed = ["type"] if header[6:] else []
    assert header == ["path", "name", "x", "y", "width", "height", *typed]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"crops.csv", *(row[0] for row in rows)}
    image = read_image(folder / "board.png")
    for path, _, *box in rows:
        x, y, width, height = map(int, box[:4])
        assert np.array_equal(read_image(tmp_path / "out" / path), image[y : y + height, x : x + width])


BOXES = ["name", "x", "y", "width", "height"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([BOXES, ["A", 10, 10, 40, 40], ["B", 940, 700, 40, 40]], r"1 of 2 boxes are not within .* B at \(940, 700\)"),
        ([BOXES, ["A", -1, 10, 40, 40]], "not within"),
        ([BOXES, ["A", 10, 10, 2, 2]], "under 8 px"),
        ([BOXES, ["A", 10, 10, 0, 40]], "must be greater than 0"),
        ([BOXES, ["A", 10, "nan", 40, 40]], "line 2: y is 'nan'"),
        ([BOXES, ["A", 10, "1e400", 40, 40]], "line 2: y is '1e400'"),
        ([BOXES, ["A", 10, "3mm", 40, 40]], "plain number"),
        ([BOXES, ["A", 10, 10, 40]], "line 2: height is ''"),
        ([BOXES, ["A", 10, 10, 40, 40, 9]], "line 2: 6 values for 5 columns"),
        ([BOXES], "no rows"),
        ([[*BOXES, "X"], ["A", 1, 2, 3, 4, 5]], "column x twice"),
        ([["ref", "x", "y"], ["A", 1, 2]], "it needs name, x, y, width, height"),
    ],
)
def test_bad_boxes_leave_nothing_behind(folder, tmp_path, rows, message):
    pads = table(tmp_path / "pads.csv", rows)
    with pytest.raises(UserError, match=message):
        crop.run([f"board={folder / 'board.png'}", f"pads={pads}", f"out={tmp_path / 'out'}"])
    assert [path.name for path in tmp_path.iterdir()] == ["pads.csv"]


def scaled(folder, path, name, factor):
    """One of the board's tables with its millimetres in another unit."""
    header, *rows = read(folder / name)
    columns = [index for index, key in enumerate(header) if key in ("PosX", "PosY", "board_x", "board_y")]
    return table(
        path,
        [
            header,
            *([float(cell) * factor if i in columns else cell for i, cell in enumerate(row)] for row in rows),
        ],
    )


@pytest.mark.parametrize(("factor", "unit"), [(1 / 0.0254, "mil"), (1 / 25.4, "inches")])
def test_mixed_units_are_named(folder, options, tmp_path, factor, unit):
    with pytest.raises(UserError, match=f"placement file is in {unit}"):
        read_board(options(pads=scaled(folder, tmp_path / "a.csv", "centroid.csv", factor)))
    with pytest.raises(UserError, match="must be in millimetres"):
        read_board(options(fiducials=scaled(folder, tmp_path / "b.csv", "fiducials.csv", factor)))


def test_swapped_and_missing_fiducials(folder, options, tmp_path):
    header, *rows = read(folder / "fiducials.csv")
    swapped = [[*rows[0][:3], *rows[1][3:]], [*rows[1][:3], *rows[0][3:]]]
    for marks, message in (
        ([*swapped, rows[2]], "swapped"),
        ([*swapped, *rows[2:]], "Fiducial F. is .* mm from where the fit puts it"),
        (rows[:2], "needs 3"),
    ):
        with pytest.raises(UserError, match=message):
            read_board(options(fiducials=table(tmp_path / "marks.csv", [header, *marks])))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"footprints": ""}, "footprints=CSV .* or size=MM"),
        ({"size": 2.0}, "footprints=CSV .* or size=MM"),
        ({"fiducials": ""}, "give fiducials=CSV"),
        ({"side": "left"}, "side=left is unknown"),
        ({"side": "bottom"}, "no components on side=bottom"),
        ({"margin": -0.1}, "margin=-0.1 is out of range"),
        ({"margin": 3.0}, "is margin too large"),
        ({"board": ""}, "both"),
        ({"board": "nowhere.png"}, "nowhere.png: can't be read"),
    ],
)
def test_options_that_do_not_fit(options, changes, message):
    with pytest.raises(UserError, match=message):
        read_board(options(**changes))


def test_picture_of_absurd_size_is_refused_before_it_is_decoded(folder, tmp_path):
    data = bytearray((folder / "board.png").read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2  # the header's width and height
    (tmp_path / "huge.png").write_bytes(data)
    with pytest.raises(UserError, match=r"million pixels|no readable image"):
        read_board(BoardOptions(board=str(tmp_path / "huge.png"), pads=str(folder / "pads.csv")))


@given(
    st.lists(
        st.one_of(
            st.text(max_size=120), st.sampled_from(["R1", "r1", "R1-2", "../x", "/etc/x", "NUL", ".", "-rf", "+5V"])
        )
    )
)
def test_file_names_are_safe_and_all_different(designators):
    names = file_names(designators)
    assert len(names) == len(designators)
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}\.png", name)
        assert ".." not in name[:2]
        assert name.split(".")[0].lower() not in ("con", "nul", "com1")


def test_plain_designators_keep_their_names():
    assert file_names(["R12.1", "U3-A", "r12.1", "J/4"]) == ["R12.1.png", "U3-A.png", "r12.1-2.png", "J_4.png"]


def test_hostile_designators_stay_in_the_folder(folder, tmp_path):
    rows = [[name, 10, 10, 40, 40] for name in ("../../x", "/tmp/x", "a\\b", "x\ny", "..")]
    pads = table(tmp_path / "pads.csv", [BOXES, *rows])
    crop.run([f"board={folder / 'board.png'}", f"pads={pads}", f"out={tmp_path / 'out'}"])
    assert len(list((tmp_path / "out").iterdir())) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"out", "pads.csv"}


# verdicts


def test_verdicts_are_drawn_on_their_joints_alone(options):
    board = read_board(options())
    margins = [1.0 if box.name == "C4.1" else -1.0 for box in board.joints]
    drawn = verdicts_on_board(board, margins)
    changed = (drawn != board.image).any(axis=2)
    elsewhere = changed.copy()
    for box in board.joints:
        assert changed[box.y, box.x : box.x + box.width].mean() > 0.9, box.name
        reach = (30, 110) if box.name == "C4.1" else (4, 4)  # its note is beside it
        down, across = reach
        elsewhere[
            max(0, box.y - down) : box.y + box.height + down, max(0, box.x - across) : box.x + box.width + across
        ] = False
    assert not elsewhere.any()
    thickness = {box.name: changed[box.y : box.y + 9, box.x + 20].sum() for box in board.joints}
    assert thickness.pop("C4.1") > 2 * max(value for name, value in thickness.items() if name != "C4.2")


def insides(picture, board, rim=4):
    """The pixels of each box without its rim."""
    return [
        picture[box.y + rim : box.y + box.height - rim, box.x + rim : box.x + box.width - rim] for box in board.joints
    ]


@pytest.mark.slow
def test_no_name_hides_a_joint_or_another_name(options):
    """Whichever joints are called; each name is as large as it is alone."""
    board = read_board(options())
    everything = verdicts_on_board(board, [1.0] * len(board.joints))
    for drawn in (everything, boxes_on_board(board)):
        for shown, before in zip(insides(drawn, board), insides(board.image, board), strict=True):
            assert np.array_equal(shown, before)
    white = (everything == 255).all(2).sum() - (board.image == 255).all(2).sum()
    alone = [verdicts_on_board(board, [1.0 if one is box else -1.0 for one in board.joints]) for box in board.joints]
    assert white == sum((drawn == 255).all(2).sum() - (board.image == 255).all(2).sum() for drawn in alone)


def test_boxes_can_be_looked_at_before_anything_is_cut(options, tmp_path, capsys):
    files = [f"{key}={value}" for key, value in vars(options()).items() if value not in ("", None)]
    drawn = tmp_path / "boxes.png"
    assert crop.run([*files, f"boxes={drawn}"]) == 0
    assert f"Their boxes are drawn in {drawn}." in capsys.readouterr().out
    assert np.array_equal(read_image(drawn), boxes_on_board(read_board(options())))
    assert [path.name for path in tmp_path.iterdir()] == ["boxes.png"]
    for wrong, message in [
        ([], "Give out=DIR"),
        ([f"boxes={drawn}"], "nothing is overwritten"),
        (["boxes=x.jpg"], "must end in .png"),
        ([f"boxes={tmp_path / 'no/x.png'}"], "in a folder that is not there"),
    ]:
        with pytest.raises(UserError, match=message):
            crop.run([*files, *wrong])


def test_notes_of_neighbours_do_not_cover_each_other_or_a_joint():
    """Two joints side by side, each with the type that it looks like: what is drawn of one alone stays."""
    board = Board(
        np.full((300, 400, 3), 90, np.uint8),
        [BoardJoint("C1.1", 150, 120, 40, 40), BoardJoint("C1.2", 195, 120, 40, 40)],
    )
    looks = ["missing_component", "shifted_component"]
    alone = verdicts_on_board(Board(board.image, board.joints[:1]), [2.0], looks[:1])
    both = verdicts_on_board(board, [2.0, 1.0], looks)
    black = (alone == 0).all(axis=2)
    assert black.sum() > 1500  # the note's ground
    shown = (alone != board.image).any(axis=2)
    assert np.array_equal(both[shown], alone[shown])
    inside = both[125:155, 200:230]
    assert (inside == 90).all()
    without = verdicts_on_board(board, [2.0, 1.0])
    assert (without == 0).sum() < (both == 0).sum()
    rows = [{"margin": margin, "type": look} for margin, look in zip((2.0, 1.0), looks, strict=True)]
    assert np.array_equal(predictions_on_board(board, rows), both)
    assert np.array_equal(predictions_on_board(board, [{"margin": 2.0}, {"margin": 1.0}]), without)


def test_labels_of_joints_make_a_manifest(folder, tmp_path):
    common = [f"{key}={folder / name}.csv" for key, name in (("pads", "pads"), ("labels", "truth"))]
    crop.run([f"board={folder / 'board.png'}", *common, f"out={tmp_path / 'out'}"])
    truth = {row["name"]: row["label"] for row in csv.DictReader((folder / "truth.csv").open(encoding="utf-8"))}
    records = {Path(record.path).stem: record.defect for record in FolderSource(tmp_path / "out/crops.csv").records()}
    assert records == truth
    assert len(set(truth.values())) > 3


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("name,label\nC1.1,normal\n", "has no row for"),
        ("name,label\nC1.1,normal\nC1.1,bridge\n", "line 3: C1.1 comes twice"),
        ("name,label\nC1.1,\n", "line 2: C1.1 has no label"),
        ("name,defect\nC1.1,normal\n", "label"),
    ],
)
def test_labels_that_do_not_fit_write_nothing(folder, tmp_path, lines, message):
    (tmp_path / "labels.csv").write_text(lines)
    common = [f"board={folder / 'board.png'}", f"pads={folder / 'pads.csv'}", f"out={tmp_path / 'out'}"]
    with pytest.raises(UserError, match=message):
        crop.run([*common, f"labels={tmp_path / 'labels.csv'}"])
    with pytest.raises(UserError, match="give one of them"):
        crop.run([*common, "label=normal", f"labels={tmp_path / 'labels.csv'}"])
    assert not (tmp_path / "out").exists()


def test_predict_inspects_a_board(options, tmp_path, capsys):
    checkpoint, _ = write_checkpoint(tmp_path / "best.ckpt")
    values = {key: value for key, value in vars(options()).items() if value not in ("", None)}
    out = tmp_path / "out"
    status = predict.run(
        [f"checkpoint={checkpoint}", *(f"{key}={value}" for key, value in values.items()), f"out={out}"]
    )
    assert status == 0
    assert "46 joints on the board" in capsys.readouterr().out
    board = read_board(options())
    rows = list(csv.DictReader((out / "predictions.csv").open(encoding="utf-8")))
    assert [row["path"] for row in rows] == [joint.name for joint in board.joints]
    margins = [float(row["margin"]) for row in rows]
    assert 0 < sum(margin > 0 for margin in margins) < 46
    assert np.array_equal(read_image(out / "board.png"), verdicts_on_board(board, margins))
    with pytest.raises(UserError, match="one of images="):
        predict.run([f"checkpoint={checkpoint}", "images=x", "board=y", f"out={tmp_path / 'more'}"])
