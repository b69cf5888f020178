"""From paths to sections of text, and from sections to tokens that know where they came from."""

from hga_chat.documents.budget import OverBudget, over_budget, token_counts
from hga_chat.documents.clean import displayable
from hga_chat.documents.layout import DocumentSpan, DocumentTokens, SectionSpan, lay_out
from hga_chat.documents.load import load_documents
from hga_chat.documents.types import (
    Document,
    DocumentError,
    LoadedDocuments,
    Passage,
    Section,
    Skipped,
)

__all__ = [
    "Document",
    "DocumentError",
    "DocumentSpan",
    "DocumentTokens",
    "LoadedDocuments",
    "OverBudget",
    "Passage",
    "Section",
    "SectionSpan",
    "Skipped",
    "displayable",
    "lay_out",
    "load_documents",
    "over_budget",
    "token_counts",
]
