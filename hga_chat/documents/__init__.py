"""From paths to sections of text, and from sections to tokens that know where they came from."""

from hga_chat.documents.budget import OverBudget, over_budget
from hga_chat.documents.fit import room_for_turns
from hga_chat.documents.layout import DocumentSpan, DocumentTokens, SectionSpan, lay_out
from hga_chat.documents.left_out import left_out_note
from hga_chat.documents.load import iter_documents, load_documents
from hga_chat.documents.secrets import Secret, secrets_note
from hga_chat.documents.survey import Counted, Survey, listing, survey_documents
from hga_chat.documents.types import (
    Document,
    DocumentError,
    LoadedDocuments,
    Passage,
    Section,
    Skipped,
)

__all__ = [
    "Counted",
    "Document",
    "DocumentError",
    "DocumentSpan",
    "DocumentTokens",
    "LoadedDocuments",
    "OverBudget",
    "Passage",
    "Secret",
    "Section",
    "SectionSpan",
    "Skipped",
    "Survey",
    "iter_documents",
    "lay_out",
    "left_out_note",
    "listing",
    "load_documents",
    "over_budget",
    "room_for_turns",
    "secrets_note",
    "survey_documents",
]
