"""Classes of HTML elements: blocks, headings, hidden content."""

# Elements without an end tag.
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
# Scripts, controls, embedded content, and text that is repeated elsewhere.
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
# Blocks with a blank line around them.
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
# Blocks with a line of their own.
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
# Elements that cannot be part of a heading and so end one that was never closed.
END_HEADINGS = PARAGRAPHS | CELLS | {"li", "section", "article", "tr"}
