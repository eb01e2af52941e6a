"""Tables in Markdown, pages filled with text that stays text."""

import json

from solder_vae.utils.document import fill_page, markdown


def test_a_table_lines_up_and_keeps_its_columns():
    assert markdown(["a", "bc"], [["d|e", "f"], ["g", "hij"]]) == (
        "| a    | bc  |\n| ---- | --- |\n| d\\|e | f   |\n| g    | hij |\n"
    )


def test_no_text_ends_the_script_of_a_page():
    name = "</script><!--<b>ü"
    page = fill_page("audit.html", {"name": name})
    line = next(line for line in page.splitlines() if r"\u003c" in line)
    assert name not in page
    assert json.loads(line[line.index("{") : line.rindex("}") + 1]) == {"name": name}
