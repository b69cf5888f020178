from hga_chat.conversation.prompts import room_for_documents
from tests.support.scripted import ScriptedTokenizer


def test_room_for_documents_leaves_room_for_question_and_answer():
    tokenizer = ScriptedTokenizer()
    # Opening 1 token; 512 for the question; 100 for the answer.
    assert room_for_documents(tokenizer, 1_000, 100) == 1_000 - 1 - 512 - 100
    # 600 words (the first with the second newline), a newline, two tokens to open the answer.
    long = " ".join(["word"] * 600)
    assert room_for_documents(tokenizer, 1_000, 100, long) == 1_000 - 1 - 603 - 100
    assert room_for_documents(tokenizer, 100, 100) == 0
