"""DeepMatch's own tests, with the package's name changed to `deepmatch_ext`: how many pass.

    git clone https://github.com/shenweichen/DeepMatch
    python benchmarks/deepmatch_suite.py DeepMatch
    TF_USE_LEGACY_KERAS=1 python benchmarks/deepmatch_suite.py DeepMatch    # on tf-keras
    TF_USE_LEGACY_KERAS=1 python benchmarks/deepmatch_suite.py DeepMatch --eager-off

The tests are copied into a temporary folder. In the copy, the package's name is changed, and the line that turns eager
mode off is dropped, since this package trains with it; with ``--eager-off``, for tf-keras, the line stays. Nothing else
is changed. Further arguments go to pytest.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

CONFTEST = """
from unittest import mock
with mock.patch("threading.Thread.start"):  # DeepCTR asks a package index for its newest version
    import deepctr
"""


def ported(text: str, eager_off: bool) -> str:
    """The program with this package's name, and in eager mode unless `eager_off`."""
    text = re.sub(r"\bdeepmatch\b", "deepmatch_ext", text)
    return text if eager_off else text.replace("tf.compat.v1.disable_eager_execution()", "pass")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=pathlib.Path, help="of https://github.com/shenweichen/DeepMatch")
    parser.add_argument("--eager-off", action="store_true", help="keep the line that turns eager mode off")
    arguments, for_pytest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        tests = pathlib.Path(folder, "tests")
        shutil.copytree(arguments.checkout / "tests", tests)
        pathlib.Path(folder, "conftest.py").write_text(CONFTEST)
        for path in tests.rglob("*.py"):
            path.write_text(ported(path.read_text(encoding="utf-8"), arguments.eager_off), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "python_files=*_test.py"]
        return subprocess.run([*command, *(for_pytest or ["tests"])], cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
