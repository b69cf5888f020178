"""Classes of HTML elements: blocks, headings, content that is not shown."""

# What a browser does not show as text, and what to call it when it is left out; None if nothing of
# it is of interest.
NOT_SHOWN: dict[str, str | None] = {
    "audio": "audio and video",
    "canvas": "drawings",
    "datalist": None,
    "embed": "embedded objects",
    "frame": "embedded pages",
    "iframe": "embedded pages",
    "noembed": None,
    "noframes": None,
    "noscript": "text for browsers without scripts",
    "object": "embedded objects",
    "param": None,
    "rp": None,
    "script": "scripts",
    "style": None,
    "template": "templates",
    "video": "audio and video",
    # of SVG
    "clipPath": None,
    "defs": None,
    "marker": None,
    "mask": None,
    "metadata": None,
    "pattern": None,
    "symbol": None,
}
# Media types of scripts that hold TeX, as MathJax 2 has them.
TEX_SCRIPTS = frozenset({"math/tex", "math/latex", "application/x-tex"})
HEADINGS = {f"h{level}": level for level in range(1, 7)}
# Blocks with a blank line around them.
_BLOCKS_OF_TEXT = frozenset(
    {
        "blockquote",
        "details",
        "dir",
        "dl",
        "figure",
        "fieldset",
        "hr",
        "listing",
        "menu",
        "ol",
        "p",
        "plaintext",
        "pre",
        "table",
        "ul",
        "xmp",
    }
)
PARAGRAPHS = _BLOCKS_OF_TEXT | HEADINGS.keys()
# Blocks with a line of their own; "text" is that of SVG.
_LINES = frozenset(
    {
        "address",
        "article",
        "aside",
        "body",
        "caption",
        "center",
        "dd",
        "dialog",
        "div",
        "dt",
        "figcaption",
        "footer",
        "form",
        "header",
        "hgroup",
        "legend",
        "li",
        "main",
        "nav",
        "optgroup",
        "search",
        "section",
        "summary",
        "tbody",
        "td",
        "text",
        "tfoot",
        "th",
        "thead",
        "tr",
    }
)
BLOCKS = PARAGRAPHS | _LINES
CELLS = frozenset({"td", "th"})
ROW_GROUPS = frozenset({"tbody", "thead", "tfoot", "table"})
UNNUMBERED_LISTS = frozenset({"ul", "menu", "dir"})
LISTS = UNNUMBERED_LISTS | {"ol"}
PREFORMATTED = frozenset({"pre", "listing", "xmp", "plaintext", "textarea"})
STRUCK = frozenset({"del", "s", "strike"})
# Elements that cannot be part of a heading and so end one that was never closed.
END_HEADINGS = PARAGRAPHS | CELLS | {"li", "section", "article", "tr"}
# Text that stands in a box of its own on the line.
BOXES = frozenset({"button", "textarea", "select"})
