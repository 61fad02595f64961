"""The package as it was built and installed: it is whole, and the README's program runs. Not from the repository."""

import re
from importlib.metadata import distribution
from pathlib import Path

import deepmatch_ext

home, here = Path(deepmatch_ext.__file__).parent, Path(__file__).resolve().parent
assert home == here / "installed" / "deepmatch_ext", home
for name in ("py.typed", "evaluation/report/page.html"):
    assert (home / name).is_file(), name
installed = distribution("deepmatch_ext")
assert installed.version == deepmatch_ext.__version__
assert installed.metadata["License"] == "Apache-2.0"
assert not (here / "installed" / "tests").exists()

whole, parts = re.findall(r"```python\n(.*?)```", (here / "README.md").read_text(encoding="utf-8"), re.DOTALL)
names: dict = {}
whole = whole.replace("num_users=2000", "num_users=100").replace('test="last")', 'test="last", epochs=1)')
for program in (whole, parts.replace("epochs=5", "epochs=1")):
    exec(compile(program, "README.md", "exec"), names)
assert names["ids"].shape == (100, 10)
print("the built package: installed, and the README's program ran")
