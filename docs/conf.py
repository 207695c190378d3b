"""The site: these pages and the API reference from the docstrings. `make docs` builds it."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "grokcore"
author = "The grokcore authors"
copyright = author
version = release = version_of("grokcore")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["requirements.txt"]

myst_enable_extensions = ["dollarmath", "amsmath", "fieldlist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links out of docs/, to files of the checkout

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}
autodoc_mock_imports = ["lightning", "transformers"]
napoleon_google_docstring = True
napoleon_custom_sections = [("Fields", "params_style"), "Memory", "Note"]
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_preprocess_types = False

html_theme = "furo"
html_title = "grokcore"
