import io
import zipfile
from collections.abc import Callable

import pytest

NAMESPACES = (
    'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
    'xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing" '
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
    'xmlns:v="urn:schemas-microsoft-com:vml" '
    'xmlns:w16se="http://schemas.microsoft.com/office/word/2015/wordml/symex"'
)


def packed(members: dict[str, str | bytes]) -> bytes:
    """Return a ZIP archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def make_docx() -> Callable[..., bytes]:
    """Return a function that makes a Word document of a body, styles and other members."""

    def make(body: str, styles: str = "", **members: str) -> bytes:
        main = f"<w:document {NAMESPACES}><w:body>{body}</w:body></w:document>"
        return packed(
            {
                "[Content_Types].xml": "<Types/>",
                "word/document.xml": main,
                "word/styles.xml": f"<w:styles {NAMESPACES}>{styles}</w:styles>",
                **{f"word/{name}.xml": content for name, content in members.items()},
            }
        )

    return make
