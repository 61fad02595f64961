"""The README's Python runs, on fewer users."""

import pathlib
import re

import pytest

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.smoke
def test_the_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, second = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert first.count("num_users=2000") == second.count("epochs=5") == 1
    names = {}
    first = first.replace("num_users=2000", "num_users=100").replace('test="last")', 'test="last", epochs=1)')
    exec(compile(first, "README.md", "exec"), names)
    assert len(names["recommender"].interactions) == len(names["events"])
    assert "YoutubeDNN" in capsys.readouterr().out
    exec(compile(second.replace("epochs=5", "epochs=1"), "README.md", "exec"), names)
    assert names["ids"].shape == (100, 10)
    assert names["model"].item_vectors().shape == (names["items"], 64)


def test_it_is_short():
    assert README.count("\n") <= 130


def test_what_it_names_exists():
    import deepmatch_ext
    from deepmatch_ext import data, evaluation, optimizers, retrieval, samplers

    for name in re.findall(r"`([A-Z]\w+)`", README):
        homes = (deepmatch_ext, data, evaluation, optimizers, retrieval, samplers, deepmatch_ext.utils)
        deepctrs = ("SparseFeat", "VarLenSparseFeat", "DenseFeat")
        assert name in deepctrs or any(hasattr(home, name) for home in homes), name
