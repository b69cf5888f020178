"""Which elements of HTML make blocks, and which are no text."""

# Without an end.
VOID = frozenset(
    {
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
    }
)
# Controls, scripts, what other programs show, and what is said elsewhere.
NOT_TEXT = frozenset(
    {
        "annotation",
        "audio",
        "button",
        "canvas",
        "datalist",
        "iframe",
        "noscript",
        "object",
        "script",
        "select",
        "style",
        "svg",
        "template",
        "textarea",
        "title",
        "video",
    }
)
HEADINGS = {f"h{level}": level for level in range(1, 7)}
# With a blank line around them.
_BLOCKS_OF_TEXT = frozenset(
    {
        "blockquote",
        "details",
        "dl",
        "figure",
        "fieldset",
        "hr",
        "ol",
        "p",
        "pre",
        "table",
        "ul",
    }
)
PARAGRAPHS = _BLOCKS_OF_TEXT | HEADINGS.keys()
# With a line of their own.
_LINES = frozenset(
    {
        "address",
        "article",
        "aside",
        "body",
        "caption",
        "center",
        "dd",
        "div",
        "dt",
        "figcaption",
        "footer",
        "form",
        "header",
        "legend",
        "li",
        "main",
        "nav",
        "option",
        "section",
        "summary",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
    }
)
BLOCKS = PARAGRAPHS | _LINES
CELLS = frozenset({"td", "th"})
# What cannot be part of a heading, so that one that is never closed ends there.
END_HEADINGS = PARAGRAPHS | CELLS | {"li", "section", "article", "tr"}
