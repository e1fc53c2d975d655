"""Sphinx's settings of the site: `make docs` builds it without network, warnings as errors."""

import importlib.util
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS)]

import docstrings  # noqa: E402
import pages  # noqa: E402

import diffevo_jax as de  # noqa: E402

project = "diffevo-jax"
version = release = de.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]

# Pages are MyST Markdown; notebooks are shown with the output that is stored in them.
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # they would be fetched
nb_merge_streams = True

# The reference: signatures as the source writes them, docstrings of the house's form.
autodoc_member_order = "bysource"
autosummary_generate = False
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"
copybutton_exclude = ".linenos, .gp, .go"

smartquotes = False  # --out is no dash

mathjax_path = "mathjax/tex-chtml.js"

html_theme = "sphinx_book_theme"
html_title = "diffevo-jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "footer_content_items": [],
}


def copy_mathjax(app, exception) -> None:
    """Put MathJax 3 and its fonts into the site, without its other bundles; a package has them."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    assert package is not None, 'pip install ".[docs]"'
    assert package.origin is not None
    source = Path(package.origin).parent / "static" / "mathjax"
    others = [path.name for path in source.glob("*.js") if path.name != "tex-chtml.js"]
    target = Path(app.outdir) / "_static" / "mathjax"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*others), dirs_exist_ok=True)


def setup(app) -> None:
    """Write the generated pages before sources are read; render docstrings."""
    app.connect("build-finished", copy_mathjax)
    app.connect("builder-inited", lambda app: pages.write(DOCS / "generated"))
    app.connect("autodoc-process-signature", docstrings.signature)
    app.connect("autodoc-skip-member", docstrings.skip)
    app.connect("autodoc-process-docstring", docstrings.process)
    app.connect("missing-reference", docstrings.missing)
