"""The documentation site: python -m sphinx -W --keep-going docs docs/_build"""

import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

with mock.patch("threading.Thread.start"):  # DeepCTR asks a package index for its newest version
    import deepctr.feature_column  # noqa: F401

import deepmatch_ext

project = "deepmatch_ext"
author = "the authors of deepmatch_ext"
copyright = "the authors of deepmatch_ext, Apache-2.0"
version = release = deepmatch_ext.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "mermaid",
    "mathml",
    "reference",
]
exclude_patterns = ["_build"]

# Pages: links have GitHub's anchors, so that the files read as well in the repository.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]

# The API reference, from the docstrings.
default_role = "py:obj"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # Keras's are no reStructuredText
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

# The site.
html_theme = "furo"
html_title = f"deepmatch_ext {release}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_show_sphinx = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
