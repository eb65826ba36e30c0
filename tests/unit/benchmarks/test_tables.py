"""Numbers as tables, and Markdown between a page's markers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.models.tables import interval, markdown, put

PAGE = "# Page\n\n<!-- begin: one -->\nold\n<!-- end: one -->\n\ntext\n\n<!-- begin: two -->\n<!-- end: two -->\n"


def test_an_interval_is_students():
    assert interval([1.0, 2.0, 3.0], 2) == "2.00 ± 2.48"  # 4.303 * 1 / sqrt 3
    assert interval([0.5], 3) == "0.500"
    assert interval([np.nan, 1.0], 1) == "nan"


def test_markdown_has_a_line_a_row():
    lines = markdown(["model", "a"], [["x|y", "1"], ["z", "2"]]).splitlines()
    assert lines == ["| model | a |", "| --- | ---: |", "| x\\|y | 1 |", "| z | 2 |"]


def test_only_what_stands_between_the_markers_is_replaced():
    found = put(PAGE, "one", "new \\1 text\n")
    assert found == PAGE.replace("\nold\n", "\n\nnew \\1 text\n\n", 1)
    assert put(found, "one", "new \\1 text") == found
    assert "two" in put(found, "two", "more")


@pytest.mark.parametrize("name", ["three", "twice", "turned"])
def test_markers_that_are_not_one_pair_in_order_are_refused(name):
    page = PAGE + "<!-- begin: twice --><!-- end: twice -->" * 2
    page += "<!-- end: turned --><!-- begin: turned -->"
    with pytest.raises(ValueError, match=f"begin: {name}"):
        put(page, name, "text")
