"""The README's Python runs, one block after another, on fewer users."""

import pathlib
import re

import pytest

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.smoke
def test_the_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 5
    assert blocks[0].count("num_users=2000") == 1
    blocks[0] = blocks[0].replace("num_users=2000", "num_users=300")
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["ids"].shape == (300, 10)
    assert names["model"].item_vectors().shape == (names["items"], 64)
    assert names["users"] == pytest.approx(names["user_vectors"], abs=1e-6)
    assert names["nearest"].shape == (300, 10)
    assert "'HR@10'" in capsys.readouterr().out


def test_what_it_names_exists():
    import deepmatch_ext
    from deepmatch_ext import data, evaluation, optimizers, retrieval, samplers

    for name in re.findall(r"`([A-Z]\w+)`", README):
        homes = (deepmatch_ext, data, evaluation, optimizers, retrieval, samplers, deepmatch_ext.utils)
        deepctrs = ("SparseFeat", "VarLenSparseFeat", "DenseFeat")
        assert name in deepctrs or any(hasattr(home, name) for home in homes), name
