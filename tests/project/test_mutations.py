"""The list of mutations is true: each breaks one place that is there, a test that is there notices it, a page lists it.

That the test fails is shown by ``make mutations``.
"""

import pytest
from mutations import MUTATIONS, ROOT

PAGE = (ROOT / "docs/project/development.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_a_mutation_is_up_to_date(mutation):
    text = (ROOT / "solder_vae" / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1
    assert mutation.new != mutation.old
    file, _, name = mutation.test.partition("::")
    assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert f"| {mutation.what} | `{file}`: `{name.removeprefix('test_')}` |" in PAGE
