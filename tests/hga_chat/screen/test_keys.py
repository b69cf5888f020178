"""Every key and command, over a scripted engine."""

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import Static, TextArea

from hga_chat.conversation.verify import Effect, Verification
from hga_chat.documents import Document, LoadedDocuments, Section
from hga_chat.screen.app import ChatApp
from hga_chat.screen.commands import COMMANDS, is_command, parse
from hga_chat.screen.keys import key_name
from hga_chat.screen.transcript.finder import Finder
from hga_chat.screen.transcript.widget import Transcript
from hga_chat.screen.widgets.block_map import BlockMap
from hga_chat.screen.widgets.completions import completions
from hga_chat.screen.widgets.documents import DocumentTree
from hga_chat.screen.widgets.help import KEYS, Help, help_text
from hga_chat.screen.widgets.key_line import KeyLine
from hga_chat.screen.widgets.prompt import Prompt
from hga_chat.screen.widgets.viewer import DocumentLines, Viewer
from hga_engine.config import SamplingParams

TEXT = "One **two** three.\n\n- item\n\n```python\nx = 1\n```"


@pytest.fixture
def answered(scripted, answer, opened, until):
    """An app in which a question was answered, with two more answers to come."""

    class Answered:
        def __init__(self, size=(120, 40)):
            script = scripted()
            self.whale = script.group_of("The whale")
            reads = {3: 3.0, self.whale: 1.0}
            script.engine._answers += [answer(text, reads) for text in (TEXT, "Two.", "Three.")]
            self.script = script
            self.context = opened(script.make, size)

        async def __aenter__(self):
            self.app, self.pilot = await self.context.__aenter__()
            await self.until(lambda: self.app.flow.state == "ready")
            await self.ask("sea")
            return self

        async def __aexit__(self, *error):
            return await self.context.__aexit__(*error)

        async def until(self, predicate):
            await until(self.pilot, predicate)

        async def ask(self, text):
            count = len(self.app.transcript.turns) + 1
            self.app.prompt.text = text
            await self.pilot.press("enter")
            await self.until(lambda: self.is_done(count))

        def is_done(self, count):
            turns = self.app.transcript.turns
            return len(turns) == count and turns[-1].state == "done" and self.app.flow.is_free

        def notified(self):
            return "\n".join(notice.message for notice in self.app._notifications)

        async def press(self, *keys):
            await self.pilot.press(*keys)
            await self.pilot.pause()

        async def command(self, text):
            self.app.prompt.text = text
            self.app.prompt.action_send()
            await self.pilot.pause()
            await self.pilot.pause()

    return Answered


def copied(app):
    return app.clipboard


async def test_help_lists_every_key_and_command(answered):
    async with answered() as it:
        await it.press("f1")
        assert isinstance(it.app.screen, Help)
        await it.press("escape")
        assert not isinstance(it.app.screen, Help)
        await it.command("/help")
        assert isinstance(it.app.screen, Help)
    listed = help_text().plain
    assert all(f"/{command.name}" in listed for command in COMMANDS)


def test_keys_named_by_commands_run_the_same_actions():
    bound = {key_name(binding): binding.action for binding in ChatApp.BINDINGS}
    for command in COMMANDS:
        assert not command.key or bound[command.key] == command.action


def test_keys_have_the_same_names_in_footer_help_and_docs():
    known = {"Tab", "Shift+Tab", "Ctrl+P", "Shift+Enter", "PgUp", "PgDn", "@"}
    widgets = (ChatApp, Prompt, Transcript, BlockMap, DocumentTree, DocumentLines, Viewer, Finder)
    for widget in widgets:
        for binding in widget.BINDINGS:
            for key in binding.key.split(","):
                known.add(key_name(replace(binding, key=key, key_display=None)))
            known.update((binding.key_display or "").split())
    listed = {key for _, keys in KEYS for left, _ in keys for key in left.split()}
    assert listed <= known
    page = (Path(__file__).parents[3] / "docs" / "screen.md").read_text()
    named = set(re.findall(r"(?:Ctrl|Shift)\+\w+|\bF\d\b|\bEsc\b|\^[a-z]\b", page))
    assert {"F1", "F5", "Esc", "Ctrl+J"} <= named <= known


async def test_footer_shows_keys_that_do_something(scripted, answer, opened, until):
    script = scripted([answer("Calm " * 9, {3: 1.0}, hold_after=4)], hold_prefill_after=2)
    async with opened(script.make) as (app, pilot):

        def shown():
            bindings = app.screen.active_bindings.values()
            return [key_name(b.binding) for b in bindings if b.binding.show]

        await until(pilot, lambda: app.flow.state.startswith("reading"))
        assert set(shown()) == {"Enter", "F1", "Ctrl+Q"}
        app.prompt.text = "sea"
        await pilot.press("enter")  # it waits, and can be withdrawn
        await until(pilot, lambda: "Esc" in shown())
        script.engine.release.set()
        await until(pilot, lambda: app.flow.is_free and app.transcript.turns[0].sources)
        assert set(shown()) == {"Enter", "F1", "Ctrl+Q", "Ctrl+F", "Ctrl+O"}
        app.transcript.focus()
        await pilot.press("j", "j", "j")
        assert "Enter" in shown()  # on a source
        await pilot.press("k")
        assert "Enter" not in shown()
        app.panels.map.focus()
        await pilot.pause()
        assert {"F5", "l", "← ↑ ↓ →"} <= set(shown())
        await pilot.press("escape")  # hidden, as there is nothing to stop
        assert app.prompt.has_focus
        await until(pilot, lambda: app.flow.clear())
        await until(pilot, lambda: set(shown()) == {"Enter", "F1", "Ctrl+Q"})


async def test_a_click_on_a_key_presses_it(answered):
    async with answered() as it:
        line = it.app.query_one(KeyLine)
        await it.pilot.click(line, offset=(line.render().plain.index("F1"), 0))
        await it.until(lambda: isinstance(it.app.screen, Help))


async def test_help_says_that_there_is_more(answered):
    async with answered() as it:
        await it.press("f1")
        await it.until(lambda: isinstance(it.app.screen, Help))
        shown = it.app.screen.query_one("#help")
        await it.until(lambda: shown.border_subtitle == "↓ more")
        shown.scroll_end(animate=False)
        await it.until(lambda: not shown.border_subtitle)


async def test_sources_open_at_the_passage_and_name_its_readers(answered):
    async with answered() as it:
        await it.press("ctrl+o")
        await it.until(lambda: bool(it.app.screen.query(DocumentLines)))
        lines = it.app.screen.query_one(DocumentLines)
        await it.until(lambda: bool(lines._shown))
        # Group 3 holds tokens 47 to 62 of the documents, which are lines of nine tokens.
        assert "line 5 of the log says calm" in lines.opened_text
        assert "answer 1 (75%)" in str(it.app.screen.query_one("#viewer-readers").content)
        await it.press("right")
        await it.until(lambda: "The whale" in it.app.screen.query_one(DocumentLines).opened_text)
        await it.press("c")
        assert "The whale is white." in copied(it.app)
        await it.press("escape")
        assert not isinstance(it.app.screen, Viewer)
        await it.command("/sources 2")
        await it.until(lambda: bool(it.app.screen.query("#viewer-place")))
        await it.until(lambda: "page 7" in str(it.app.screen.query_one("#viewer-place").content))


async def test_text_does_not_touch_the_scrollbar_and_a_legend_explains_its_bar(answered):
    async with answered((80, 24)) as it:
        await it.command("/sources 2")
        await it.until(lambda: bool(it.app.screen.query(DocumentLines)))
        lines = it.app.screen.query_one(DocumentLines)
        await it.until(lambda: bool(lines._shown))
        room = lines.scrollable_content_region.width
        rows = [lines.render_line(y).text for y in range(lines.size.height)]
        assert any("whale" in row for row in rows)
        assert all(row[room - 1 : room].isspace() for row in rows)
        legend = str(it.app.screen.query_one("#viewer-legend").content)
        assert legend.startswith("less ▌")


async def test_a_line_is_as_bright_as_its_block(answered):
    async with answered() as it:
        view = it.app.flow.view
        levels, brightness = view.levels(), view.grid.brightness(view.mass)
        for block, level in enumerate(levels):
            assert brightness(*view.grid.tokens_of(block)) == pytest.approx(level, abs=0.01)


async def test_pieces_are_chosen_opened_and_copied_as_written(answered):
    async with answered() as it:
        transcript = it.app.transcript
        transcript.focus()
        await it.press("j")
        assert transcript.cursor.kind == "question"
        await it.press("j", "c")
        assert copied(it.app) == "One **two** three."
        await it.press("j", "j", "c")
        assert copied(it.app) == "```python\nx = 1\n```"
        await it.press("y")
        assert copied(it.app) == TEXT
        await it.press("j")
        assert transcript.cursor.kind == "source"
        await it.press("enter")
        assert isinstance(it.app.screen, Viewer)
        await it.press("escape", "k", "escape")
        assert transcript.cursor is None


async def test_the_map_shows_the_trace_of_each_word(answered):
    async with answered() as it:
        it.app.transcript.focus()
        await it.press("right", "right")
        await it.until(lambda: "Blocks read for" in str(it.app.panels.map.border_title))
        assert it.app.flow.view.token == 1
        await it.press("left")
        await it.until(lambda: "“One”" in str(it.app.panels.map.border_title))
        assert sum(level > 0 for level in it.app.panels.map.levels) == 2
        await it.press("escape")
        await it.until(lambda: it.app.flow.view.token is None)


async def test_the_map_shows_each_layer(answered):
    async with answered() as it:
        title = lambda: str(it.app.panels.map.border_title)  # noqa: E731
        lit = lambda: [n for n, level in enumerate(it.app.panels.map.levels) if level > 0]  # noqa: E731
        assert len(lit()) == 2
        it.app.panels.map.focus()
        await it.press("l")
        assert "Blocks read by layer 1 of 2" in title()
        assert lit() == [0]  # group 3 of the session, of which block 0 holds the first four
        await it.press("l")
        assert "Blocks read by layer 2 of 2" in title()
        assert lit() == [it.whale // 4]
        await it.press("l")
        assert "layer" not in title()
        assert len(lit()) == 2
        await it.press("L")
        assert "layer 2 of 2" in title()
        await it.command("/layer 1")
        assert "layer 1 of 2" in title()
        await it.command("/layer 3")
        assert "layer 1 of 2" in title()
        await it.command("/layer")
        assert "layer" not in title()


async def test_search_goes_from_match_to_match(answered):
    async with answered() as it:
        await it.ask("sea again")
        await it.press("ctrl+f", *"sea")
        count = it.app.query_one("#finder-count")
        # Two questions, and "logs/sea.txt" among the sources of both.
        await it.until(lambda: str(count.content) == "4 of 4")
        await it.press("enter")
        assert str(count.content) == "3 of 4"
        await it.press("down")
        assert str(count.content) == "4 of 4"
        await it.press("escape")
        assert not it.app.finder.display
        assert it.app.focused is it.app.prompt  # from where the search was begun
        await it.command("/find page 7")
        await it.until(lambda: str(count.content) == "2 of 2")


async def test_copy_takes_the_last_answer_by_default(answered):
    async with answered() as it:
        await it.press("f8")
        assert copied(it.app) == TEXT
        await it.ask("more")
        await it.command("/copy")
        assert copied(it.app) == "Two."


async def test_edit_moves_the_question_from_the_session_to_the_prompt(answered):
    async with answered() as it:
        before = it.script.engine.num_tokens
        await it.ask("more")
        await it.press("f7")
        assert it.app.prompt.text == "more"
        await it.until(lambda: it.script.engine.num_tokens == before)
        assert len(it.app.transcript.turns) == 1
        await it.command("/edit")
        assert it.app.prompt.text == "sea"
        assert it.app.transcript.turns == []
        await it.command("/edit")
        assert it.app.prompt.text == ""


async def test_retry_replaces_the_last_turn(answered):
    async with answered() as it:
        await it.press("ctrl+r")
        await it.until(lambda: it.is_done(1) and it.app.transcript.turns[0].text == "Two.")
        assert it.script.engine.prompts[0] == it.script.engine.prompts[1]
        await it.command("/retry")
        await it.until(lambda: it.is_done(1) and it.app.transcript.turns[0].text == "Three.")


async def test_a_cleared_conversation_comes_back(answered):
    async with answered() as it:
        await it.ask("more")
        turns, session = list(it.app.transcript.turns), list(it.script.engine.session)
        await it.command("/clear")
        assert "2 turns forgotten" in it.notified()
        await it.until(lambda: it.script.engine.num_tokens == len(it.script.layout) + 1)
        await it.command("/undo")
        assert it.app.transcript.turns == turns
        assert it.app.flow.view.turn is turns[-1]
        await it.until(lambda: it.app.flow.is_free and it.script.engine.session == session)
        assert it.app.title_line.tokens == len(session)
        await it.command("/undo")
        assert it.app.transcript.turns == []
        await it.until(lambda: it.app.flow.is_free and len(it.script.engine.session) < len(session))


async def test_the_answer_before_a_retry_comes_back_and_the_new_one_too(answered):
    async with answered() as it:
        (old,) = it.app.transcript.turns
        await it.press("ctrl+r")
        await it.until(lambda: it.is_done(1) and it.app.transcript.turns[0].text == "Two.")
        (new,) = it.app.transcript.turns
        for turn in (old, new, old):
            await it.command("/undo")
            await it.until(lambda: it.app.flow.is_free)
            assert it.app.transcript.turns == [turn]
            session = it.script.engine.tokenizer.decode(it.script.engine.session)
            assert session.endswith(turn.text)


async def test_a_thought_is_folded_and_unfolds(answered):
    async with answered() as it:
        await it.command("/think on")
        assert "cannot be asked" in it.notified()
        assert not it.app.engine.thinks
        it.app.flow.can_think = it.script.engine.tokenizer.can_think = True
        await it.command("/think on")
        assert it.app.engine.thinks
        thought = "<think>\nIs it calm? The log says so.\n</think>\n\nIt is calm."
        it.script.engine._answers[0] = replace(it.script.engine._answers[0], text=thought)
        await it.ask("more")
        turn = it.app.transcript.turns[-1]
        assert (turn.text, turn.thought) == ("It is calm.", "Is it calm? The log says so.")
        assert [piece.kind for piece in turn.pieces[:3]] == ["question", "thought", "answer"]
        assert [row.plain for row in turn.pieces[1].rows] == ["▸ thought · 7 words"]
        it.app.transcript.focus()
        it.app.transcript.choose(turn.pieces[1])
        await it.press("enter")
        unfolded = turn.pieces[1]
        assert it.app.transcript.cursor is unfolded
        assert [row.plain for row in unfolded.rows] == [
            "▾ thought · 7 words",
            "Is it calm? The log says so.",
        ]
        await it.press("c")
        assert copied(it.app) == "Is it calm? The log says so."
        await it.press("enter")
        assert len(turn.pieces[1].rows) == 1
        await it.command("/think")
        assert not it.app.engine.thinks


async def test_without_a_change_there_is_nothing_to_undo(answered):
    async with answered() as it:
        await it.command("/undo")
        assert "nothing to undo" in it.notified()
        assert len(it.app.transcript.turns) == 1


async def test_verify_shows_how_much_the_answer_depends_on_each_source(answered, monkeypatch):
    def measured(conversation, number, cancel):
        first, second = conversation.turns[number].sources
        return Verification(-3.0, (Effect(first, 2.5, 0.1), Effect(second, 0.0, 0.2)), 1.0)

    monkeypatch.setattr("hga_chat.conversation.verify.verify", measured)
    async with answered() as it:
        await it.command("/verify")
        await it.until(lambda: "without each source: 2.5, 0.0;" in it.app.transcript.turns[0].note)
        first, _, second, _ = it.app.transcript.turns[0].listing.split("\n")
        assert "●  2.5 logs/sea.txt" in first
        assert "○  0.0 logs/book.pdf" in second
        await it.ask("more")  # the conversation goes on


async def test_a_failed_verification_says_why(answered, monkeypatch):
    def broken(conversation, number, cancel):
        raise ValueError("it broke")

    monkeypatch.setattr("hga_chat.conversation.verify.verify", broken)
    async with answered() as it:
        await it.command("/verify")
        await it.until(lambda: "it broke" in it.app.transcript.turns[0].note)
        assert it.app.flow.is_free


async def test_clear_keeps_the_documents(answered):
    async with answered() as it:
        await it.command("/clear")
        assert it.app.transcript.turns == []
        await it.until(lambda: it.script.engine.num_tokens == len(it.script.layout) + 1)
        assert not any(it.app.panels.map.levels)


async def test_export_writes_and_says_so(answered, tmp_path):
    async with answered() as it:
        path = tmp_path / "kept.md"
        await it.command(f"/export {path}")
        await it.until(lambda: bool(it.app.transcript.notices))
        assert it.app.transcript.notices == [f"1 turn written to {path}."]
        assert "One **two** three." in path.read_text()


async def test_map_goes_from_block_to_block_and_opens_the_passage(answered):
    async with answered() as it:
        it.app.panels.map.focus()
        await it.press("right", "right")
        assert it.app.panels.map.cursor == 2
        await it.press("end")
        assert it.app.panels.map.cursor == it.app.panels.map.blocks - 1
        await it.until(lambda: "book.pdf, page 7" in str(it.app.panels.map.border_title))
        await it.press("home", "down", "up", "enter")
        await it.until(lambda: isinstance(it.app.screen, Viewer))
        await it.until(lambda: bool(it.app.screen.query(DocumentLines)))
        assert "line 0 of the log" in it.app.screen.query_one(DocumentLines).opened_text


async def test_the_map_shows_all_answers_and_what_they_missed(answered):
    async with answered() as it:
        lit = [level > 0 for level in it.app.panels.map.levels]
        of_answer = it.app.panels.document_tree.shares()
        assert sum(lit) == 2
        await it.press("f5")
        assert "read by all answers" in str(it.app.panels.map.border_title)
        assert [level > 0 for level in it.app.panels.map.levels] == lit
        assert it.app.panels.document_tree.shares() == of_answer
        await it.command("/map")
        assert "Hardly read: 87%" in str(it.app.panels.map.border_title)  # 13 of 15 blocks
        assert [level > 0 for level in it.app.panels.map.levels] == [not read for read in lit]


async def test_panels_fold_away_and_come_back(answered):
    async with answered() as it:
        panels = {
            "f2": it.app.panels.document_tree,
            "f3": it.app.panels.map,
            "f4": it.app.panels.memory,
        }
        for key, panel in panels.items():
            await it.press(key)
            assert panel.size.height == 0
        assert it.app.panels.side.size.width == 0
        for name, panel in zip(("documents", "blocks", "memory"), panels.values(), strict=True):
            await it.command(f"/{name}")
            assert panel.size.height > 0


async def test_on_a_small_screen_a_panel_is_shown_alone(answered):
    async with answered((80, 24)) as it:
        await it.press("f2")
        assert it.app.panels.document_tree.size.height > 0
        assert it.app.panels.document_tree.has_focus
        await it.press("f3")
        assert (it.app.panels.document_tree.size.height, it.app.panels.map.size.height > 0) == (
            0,
            True,
        )
        await it.press("f3")
        assert it.app.panels.side.size.width == 0


async def test_themes_change_the_colours(answered):
    async with answered() as it:
        await it.press("f6")
        first = it.app.theme
        await it.command("/theme day")
        assert it.app.theme == "day"
        await it.command("/theme none")
        assert it.app.theme == "day"
        assert first in ("night", "day", "sixteen")


async def test_documents_open_from_the_tree(answered):
    async with answered() as it:
        it.app.panels.document_tree.focus()
        await it.press("down", "enter")
        await it.until(lambda: isinstance(it.app.screen, Viewer))
        # Asked about the whole document, not about its first line, which no answer read.
        readers = it.app.screen.query_one("#viewer-readers", Static)
        assert "Read by answer 1" in str(readers.content)
        await it.press("c")
        (span, _) = it.script.layout.documents
        assert copied(it.app) == span.document.sections[0].text.strip()


def _book():
    """A book of two parts with three chapters, the second long enough for two sections."""
    chapters = {
        "The Sea": "A book about the sea. " * 9,
        "The Sea > Calm": "The sea is calm today.\n" * 30,
        "The Sea > Storm": "The storm came at night.\n" * 30,
        "The Sea > Storm, part 2": "The mast broke.\n" * 30,
        "The Land": "The land is green.\n" * 30,
    }
    return tuple(
        Section("sea.epub", name, text, None, None, None) for name, text in chapters.items()
    )


async def test_chapters_are_rows_that_open_there(scripted, answer, opened, until):
    script = scripted(loaded=LoadedDocuments((Document("sea.epub", "epub", _book()),), ()))
    storm = script.group_of("The mast broke")
    script.engine._answers += [answer("It broke.", {storm + 1: 1.0})]
    async with opened(script.make) as (app, pilot):
        await until(pilot, lambda: app.flow.is_free)
        app.flow.send("What broke?")
        await until(pilot, lambda: app.transcript.turns and app.transcript.turns[0].sources)
        tree = app.panels.document_tree
        await until(pilot, lambda: tree.shares()["Storm"] > 0.9)
        assert tree.shares()["sea.epub"] == tree.shares()["The Sea"] == tree.shares()["Storm"]
        assert tree.shares()["Calm"] == tree.shares()["The Land"] == 0
        book = tree.root.children[0]
        assert [str(node.data.name) for node in book.children] == ["The Sea", "The Land"]
        assert sum(node.data.tokens for node in book.children) == book.data.tokens
        tree.focus()
        await pilot.press("g", "j", "j", "j", "enter")
        await until(pilot, lambda: bool(app.screen.query(DocumentLines)))
        lines = app.screen.query_one(DocumentLines)
        await until(pilot, lambda: bool(lines._shown))
        place = app.screen.query_one("#viewer-place", Static)
        assert str(place.content).startswith("sea.epub, The Sea > Storm  3 of 4")
        assert lines._lines[lines.top_line].text == "The Sea > Storm"
        assert "answer 1" in str(app.screen.query_one("#viewer-readers", Static).content)
        await pilot.press("c")
        assert copied(app).startswith("The storm came")
        assert "The mast broke" in copied(app)
        assert "→ Next" in app.screen.query_one(KeyLine).render().plain
        await pilot.press("right")
        await until(pilot, lambda: str(place.content).startswith("sea.epub, The Land"))
        await pilot.press("q")
        (source,) = app.transcript.turns[0].sources
        assert source.place == "sea.epub, The Sea > Storm, part 2"


async def test_chapters_fold(scripted, opened, until):
    log = Section("log.txt", "log.txt", "calm\n", 1, 1, None)
    loaded = LoadedDocuments(
        (Document("sea.epub", "epub", _book()), Document("log.txt", "text", (log,))), ()
    )
    async with opened(scripted(loaded=loaded).make) as (app, pilot):
        await until(pilot, lambda: app.flow.is_free)
        tree = app.panels.document_tree
        tree.focus()
        await pilot.press("g")
        assert tree.last_line == 1  # among other files, a book is folded
        await pilot.press("right")
        await until(pilot, lambda: tree.last_line == 5)
        await pilot.press("G", "g", "j", "j", "left")
        assert tree.cursor_node.data.name == "The Sea"
        await pilot.press("left")
        await until(pilot, lambda: tree.last_line == 3)
        await pilot.press("left", "left")
        await until(pilot, lambda: tree.last_line == 1)
        assert not isinstance(app.screen, Viewer)


SUMMARY = "A log of the sea. It is calm."
QUESTIONS = "1. Is it calm?\n2. Where is it?\n3. Who wrote it?"


@pytest.mark.parametrize("key", ["enter", "2", "click"])
async def test_a_first_message_offers_questions(key, scripted, until):
    script = scripted([SUMMARY, QUESTIONS, "At sea."])
    app = ChatApp(script.make, SamplingParams(), first_message=True)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: len(app.flow.suggested) == 3)
        assert "A log of the sea. It is calm." in app.transcript.card
        assert "  2  Where is it?" in app.transcript.card
        held = app.title_line.tokens
        assert held == len(script.engine.session)
        if key == "click":
            lines = app.screen._compositor.render_strips()
            y = next(n for n, strip in enumerate(lines) if "Where is it?" in strip.text)
            await pilot.click(offset=(55, y))
        else:
            await pilot.press("2")  # typed into the prompt
            assert (app.prompt.text, app.transcript.turns) == ("2", [])
            if key == "2":
                app.transcript.focus()
            await pilot.press(key)
        await until(pilot, lambda: app.transcript.turns and app.flow.is_free)
        (turn,) = app.transcript.turns
        assert (turn.question, turn.text) == ("Where is it?", "At sea.")
        assert "Where is it?" in app.transcript.card  # the questions stay


@pytest.mark.parametrize("keys", ["How\n", "\x1b"])
async def test_a_question_or_escape_stops_the_first_message(keys, scripted, answer, until):
    script = scripted([answer(SUMMARY, hold_after=3), "Calm."])
    app = ChatApp(script.make, SamplingParams(), first_message=True)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "Writing a summary" in app.transcript.card)
        await pilot.press(*({"\n": "enter", "\x1b": "escape"}.get(key, key) for key in keys))
        await until(pilot, lambda: "Writing a summary" not in app.transcript.card)
        assert not app.flow.suggested
        if "How" in keys:
            await until(pilot, lambda: app.transcript.turns and app.flow.is_free)
            assert app.transcript.turns[0].text == "Calm."


@pytest.mark.parametrize("wanted", [False, None])
async def test_without_a_gpu_there_is_a_first_message_only_if_asked_for(wanted, scripted, until):
    script = scripted(["Calm."])
    app = ChatApp(script.make, SamplingParams(), first_message=wanted)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.flow.is_free)
        await pilot.press("1", "enter")
        await until(pilot, lambda: app.transcript.turns and app.flow.is_free)
        assert (app.transcript.turns[0].question, app.transcript.turns[0].text) == ("1", "Calm.")
        assert len(script.engine.prompts) == 1


async def test_palette_runs_commands(answered):
    async with answered() as it:
        await it.press("ctrl+p")
        await it.until(lambda: len(it.app.screen_stack) == 2)
        await it.press(*"help")
        await it.pilot.pause(0.3)
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, Help))


async def test_commands_are_completed_and_unknown_ones_are_named(answered):
    async with answered() as it:
        await it.press("/", "c", "l")
        assert it.app.prompt.offered.is_open
        await it.press("tab")
        assert it.app.prompt.text == "/clear"
        await it.press("enter")
        assert it.app.transcript.turns == []
        await it.command("/nonsense")
        assert it.app.prompt.text == "/nonsense"
        assert it.app.transcript.turns == []


async def test_enter_on_the_beginning_of_a_command_runs_it(answered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with answered() as it:
        await it.press("/", "e", "x", "enter")
        await it.until(lambda: (tmp_path / "conversation.md").exists())
        await it.press("/", "r", "e", "n", "enter")  # this one needs its argument
        assert it.app.prompt.text == "/rename "


async def test_keys_that_come_at_once_take_no_completion_of_an_earlier_text(answered):
    async with answered() as it:
        await it.press("/")
        prompt = it.app.prompt
        assert prompt.offered.is_open
        with prompt.prevent(TextArea.Changed):  # it comes after Enter
            prompt.insert("find sea")
            await it.press("enter")
        count = it.app.query_one("#finder-count")
        await it.until(lambda: str(count.content) == "2 of 2")


async def test_files_are_completed_after_an_at_sign(answered):
    async with answered() as it:
        await it.press(*"in @se")
        assert it.app.prompt.offered.chosen == "logs/sea.txt "
        await it.press("tab")
        assert it.app.prompt.text == "in logs/sea.txt "
        await it.press("@", "escape")
        assert not it.app.prompt.offered.is_open


async def test_tab_cycles_the_focus_visibly(answered):
    async with answered() as it:
        seen = []
        for _ in range(4):
            await it.press("tab")
            seen.append(it.app.focused.id)
        assert seen == ["documents", "map", "transcript", "prompt"]


async def test_first_ctrl_c_copies_what_is_selected(answered):
    async with answered() as it:
        await it.pilot.double_click("#transcript", offset=(8, 9))
        await it.pilot.pause()
        selected = it.app.screen.get_selected_text()
        assert selected
        it.app.action_interrupt()
        assert copied(it.app)
        assert it.app.is_running


def test_a_slash_begins_a_command_unless_it_is_a_path():
    assert is_command("/help me")
    assert not is_command("/etc/passwd is what?")
    assert not is_command("and /help")
    assert parse("/fin x y")[1] == "x y"
    assert parse("/m") is None  # map or memory


def test_completions_prefer_names_with_the_typed_prefix():
    paths = ["src/sea.py", "tests/test_sea.py", "search/x.py"]
    _, found = completions("read @sea", paths)
    assert [text.strip() for text, _ in found] == ["src/sea.py", "search/x.py", "tests/test_sea.py"]
    assert completions("a@sea", paths)[1] == []


async def test_long_code_is_highlighted_in_the_background(answered):
    code = "```python\n" + "x = 'calm'\n" * 65 + "```"
    async with answered() as it:
        it.script.engine._answers[0] = type(it.script.engine._answers[0])(code)
        await it.ask("more")
        (piece,) = [p for p in it.app.transcript.turns[-1].pieces if p.kind == "answer"]
        assert [row.plain for row in piece.rows] == ["x = 'calm'"] * 65
        await it.until(lambda: len({str(s.style) for s in piece.rows[0].line.content.spans}) > 1)
        assert piece.count == 65


async def test_keys_of_less_and_vim_work_outside_the_prompt(answered):
    async with answered() as it:
        tree, block_map = it.app.panels.document_tree, it.app.panels.map
        tree.focus()
        await it.press("G")
        assert tree.cursor_line == tree.last_line
        await it.press("g")
        assert tree.cursor_line == 0
        await it.press("j")
        assert tree.cursor_line == 1
        block_map.focus()
        await it.press("G")
        assert block_map.cursor == block_map.blocks - 1
        await it.press("g")
        assert block_map.cursor == 0
        await it.press("question_mark")
        assert isinstance(it.app.screen, Help)
        await it.press("q")
        assert not isinstance(it.app.screen, Help)
        it.app.prompt.focus()
        await it.press("question_mark", "q", "g", "G", "n")
        assert it.app.prompt.text == "?qgGn"
        it.app.transcript.focus()
        await it.press("q")
        await it.until(lambda: not it.app.is_running)


async def test_q_does_not_interrupt_anything(scripted, answer, opened, until):
    script = scripted([answer("Calm " * 9, {3: 1.0}, hold_after=4)])
    async with opened(script.make) as (app, pilot):
        await until(pilot, lambda: app.flow.is_free)
        app.prompt.text = "sea"
        await pilot.press("enter")
        await until(pilot, lambda: app.flow.turn is not None)
        app.transcript.focus()
        await pilot.press("q")
        await pilot.pause()
        assert app.is_running
        script.engine.release.set()
        await until(pilot, lambda: app.flow.is_free)


async def test_slash_searches_as_in_less(answered):
    async with answered() as it:
        await it.ask("sea again")
        it.app.panels.map.focus()
        count = it.app.query_one("#finder-count")
        await it.press("slash", *"sea", "enter")
        assert it.app.transcript.has_focus
        assert str(count.content) == "4 of 4"
        await it.press("n")
        assert str(count.content) == "1 of 4"
        await it.press("N", "N")
        assert str(count.content) == "3 of 4"


async def test_search_in_an_opened_document(answered):
    async with answered((80, 24)) as it:
        await it.press("ctrl+o")
        await it.until(lambda: bool(it.app.screen.query(DocumentLines)))
        lines = it.app.screen.query_one(DocumentLines)
        await it.until(lambda: bool(lines._shown))
        await it.press("slash", *"LINE 77")
        count = it.app.screen.query_one("#finder-count")
        assert str(count.content) == "not found"  # case counts with a capital letter
        await it.press("ctrl+u", *"line 7", "enter")
        assert lines.has_focus
        assert str(count.content) == "1 of 11"  # 7 and 70 to 79
        await it.press("n", "n")
        assert str(count.content) == "3 of 11"
        row = next(
            row for row in range(lines.size.height) if "line 71" in lines.render_line(row).text
        )
        ground = lines.visual_style.rich_style.bgcolor
        marked = [s.text for s in lines.render_line(row) if s.style.bgcolor != ground]
        assert marked == ["line 7"]
        await it.press("N")
        assert str(count.content) == "2 of 11"
        await it.press("G")
        assert lines.top_line > 70
        await it.press("q")
        assert not isinstance(it.app.screen, Viewer)


@pytest.fixture
def edited(monkeypatch):
    """Commands of editors that were run."""
    commands = []
    monkeypatch.setattr("hga_chat.screen.app.ChatApp.suspend", lambda self: nullcontext())
    monkeypatch.setattr("hga_chat.screen.editor.run", commands.append)
    return commands


async def test_e_opens_the_source_in_the_editor_at_its_line(
    answered, edited, tmp_path, monkeypatch
):
    monkeypatch.setenv("VISUAL", "vim")
    (tmp_path / "sea.txt").write_text("line")
    async with answered() as it:
        it.app.flow.given = {"logs": tmp_path, "more": tmp_path}
        path = str(tmp_path / "sea.txt")
        it.app.panels.document_tree.focus()
        await it.press("g", "e")
        assert edited == [["vim", "+1", path]]
        # Group 3 holds tokens 47 to 62 of the documents, after a header and five lines of nine.
        await it.press("ctrl+o")
        await it.until(lambda: bool(it.app.screen.query(DocumentLines)))
        lines = it.app.screen.query_one(DocumentLines)
        await it.until(lambda: bool(lines._shown))
        first = lines.opened_text.split()[1]
        await it.press("e")
        assert edited[1] == ["vim", f"+{int(first) + 1}", path]
        await it.press("q")
        it.app.transcript.focus()
        await it.press(*"jjjjj")
        assert it.app.transcript.cursor.kind == "source"
        await it.press("e")
        assert edited[2] == edited[1]
        (tmp_path / "sea.txt").unlink()
        await it.press("e")
        assert len(edited) == 3


async def test_a_prompt_is_written_in_the_editor(answered, monkeypatch):
    monkeypatch.setenv("VISUAL", "vim")
    monkeypatch.setattr("hga_chat.screen.app.ChatApp.suspend", lambda self: nullcontext())

    def write(command):
        path = Path(command[-1])
        path.write_text(path.read_text() + "\nand more\n")

    monkeypatch.setattr("hga_chat.screen.editor.run", write)
    async with answered() as it:
        it.app.prompt.text = "sea"
        await it.press("ctrl+g")
        assert it.app.prompt.text == "sea\nand more"


async def test_ctrl_z_undoes_typing_and_suspends_where_there_is_none(answered, monkeypatch):
    suspended = []
    monkeypatch.setattr(ChatApp, "action_suspend_process", lambda self: suspended.append(1))
    async with answered() as it:
        await it.press("a")
        await it.press("ctrl+z")
        assert (it.app.prompt.text, suspended) == ("", [])
        await it.press("ctrl+z")
        assert suspended == [1]
        it.app.transcript.focus()
        await it.press("ctrl+z")
        assert suspended == [1, 1]
