"""The examples of docs/data.md run, and give what the page says."""

import pathlib
import re

import pytest

from tests.helpers import eager_functions

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.once
def test_the_code_runs():
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(blocks[0], "data.md", "exec"), names)
    shapes = {name: values.shape[1:] for name, values in names["train"].items()}
    told = re.findall(r"^\| (`.*?)(?:, \.\.\.)? \|", PAGE, re.MULTILINE)
    listed = [name for row in told for name in re.findall(r"`(\w+)`", row)]
    assert [name for name in listed if "price" not in name] == list(shapes)
    assert (shapes["hist_item_id_click"], shapes["hist_item_id_purchase"]) == ((50,), (10,))
    # bob's click on tea at 35 is not in the history of his purchase of tea at 35: the click on milk (2) alone is.
    clicked = names["windows"](names["interactions"], names["split"].validation, 3)["hist_item_id_click"]
    assert clicked.tolist() == [[2, 0, 0]]
    with eager_functions():
        for block in blocks[1:]:
            exec(compile(block, "data.md", "exec"), names)
    assert names["vectors"].shape == (2, 16)
    assert set(names["now"]) >= set(names["model"].user_arrays(names["now"]))
    assert len(names["split"].train)
    assert len(names["split"].test)
