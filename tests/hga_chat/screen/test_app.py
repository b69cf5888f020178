import os
import re
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from textual.geometry import Offset
from textual.selection import Selection

from hga_chat.conversation.answer import restored_answer, saved_turn
from hga_chat.conversation.conversation import Conversation
from hga_chat.documents import Document, LoadedDocuments, Section
from hga_chat.errors import describe
from hga_chat.screen.drawing.legend import SOURCE
from hga_chat.screen.transcript.widget import Transcript
from hga_chat.screen.widgets.block_map import BlockMap
from hga_chat.screen.widgets.documents import DocumentTree
from hga_chat.screen.widgets.memory import MemoryPanel
from hga_chat.screen.widgets.prompt import Prompt
from hga_chat.screen.widgets.status import StatusLine, TitleLine
from hga_chat.sessions.store import SessionStore
from hga_engine.config import SamplingParams
from hga_engine.errors import ContextFullError, KVStoreError, ModelFileError
from tests.support.scripted_conversation import keep

SIZES = [(80, 24), (120, 40), (200, 60)]
LONG = " ".join(f"word{n}" for n in range(60))


def is_ready(app):
    return lambda: app.query_one(TitleLine).state == "ready"


def turns(app):
    return app.query_one(Transcript).turns


def is_done(app, count=1):
    return lambda: len(turns(app)) == count and turns(app)[-1].state == "done"


def shown(app):
    """The screen as lines of plain text."""
    return [
        "".join(segment.text for segment in strip)
        for strip in app.screen._compositor.render_strips()
    ]


async def ask(pilot, question="sea"):
    await pilot.press(*question, "enter")


@pytest.mark.parametrize("size", SIZES)
async def test_question_answer_and_sources_at_every_size(size, scripted, answer, opened, until):
    script = scripted()
    script.engine._answers.append(
        answer(
            "Calm **seas**.", {script.group_of(" 50 of"): 3.0, script.group_of("The whale"): 1.0}
        )
    )
    async with opened(script.make, size) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot, "sea")
        await until(pilot, is_done(app))
        (turn,) = turns(app)
        assert turn.text == "Calm **seas**."
        found = re.search(r"75% .* logs/sea\.txt:(\d+)-(\d+)", turn.listing)
        first, last = int(found[1]), int(found[2])
        assert first <= 51 <= last <= first + 3  # "line 50" is the 51st; a group is 16 tokens
        assert "logs/book.pdf, page 7" in turn.listing
        screen = "\n".join(shown(app))
        assert "Calm seas." in screen
        assert "logs/book.pdf, page 7" in screen
        assert "40.0 tok/s" in screen
        assert app.query_one(Prompt).text == ""


@pytest.mark.parametrize("size", SIZES)
async def test_every_line_fills_the_screen_exactly(size, scripted, opened, until):
    async with opened(scripted(["Yes."]).make, size) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot)
        await until(pilot, is_done(app))
        assert [len(line) for line in shown(app)] == [size[0]] * size[1]


@pytest.mark.parametrize(("size", "has_panels"), [((80, 24), False), ((120, 40), True)])
async def test_panels_give_way_to_one_line_on_a_small_screen(
    size, has_panels, scripted, opened, until
):
    async with opened(scripted().make, size) as (app, pilot):
        await until(pilot, is_ready(app))
        assert (app.query_one(MemoryPanel).size.height > 0) is has_panels
        assert (app.query_one(StatusLine).size.height > 0) is not has_panels
        assert any("K/V" in line for line in shown(app))


@pytest.mark.parametrize("size", [(120, 40), (200, 60), (100, 30)])
@pytest.mark.parametrize("documents", [3, 12, 40])
async def test_documents_take_the_lines_that_other_panels_leave(
    size, documents, scripted, opened, until
):
    texts = [
        Document(f"{n}.txt", "text", (Section(f"{n}.txt", "", "sea\n" * 40, 1, 40, None),))
        for n in range(documents)
    ]
    script = scripted(loaded=LoadedDocuments(tuple(texts), ()))
    async with opened(script.make, size) as (app, pilot):
        await until(pilot, is_ready(app))
        side, tree = app.panels.side, app.panels.document_tree
        left = side.region.bottom - app.panels.speed.region.bottom
        assert left >= 0
        assert tree.size.height == documents if left else tree.size.height < documents


async def test_documents_alone_fill_the_height_of_a_small_screen(scripted, opened, until):
    texts = [
        Document(f"{n}.txt", "text", (Section(f"{n}.txt", "", "calm sea\n", 1, 1, None),))
        for n in range(30)
    ]
    async with opened(scripted(loaded=LoadedDocuments(tuple(texts), ())).make, (80, 24)) as (
        app,
        pilot,
    ):
        await until(pilot, is_ready(app))
        await pilot.press("f2")
        await until(pilot, lambda: app.panels.document_tree.size.height > 0)
        assert app.panels.document_tree.region.bottom == app.panels.side.region.bottom


async def test_what_is_left_out_of_a_document_is_said(scripted, opened, until):
    sections = (Section("a.pdf", "page 1", "calm sea\n" * 40, None, None, "1"),)
    left_out = ("images (3)", "attached files (1)")
    loaded = LoadedDocuments((Document("a.pdf", "pdf", sections, left_out),), ())
    async with opened(scripted(loaded=loaded).make, (120, 40)) as (app, pilot):
        await until(pilot, is_ready(app))
        line = "Left out of a.pdf: images (3), attached files (1)"
        await until(pilot, lambda: any(line in text for text in shown(app)))
        app.panels.document_tree.focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: bool(app.screen.query("#viewer-place")))
        place = app.screen.query_one("#viewer-place")
        await until(pilot, lambda: "left out: images (3), attached" in str(place.content))


async def test_screen_follows_the_terminal(scripted, opened, until):
    async with opened(scripted(["Yes."]).make, (120, 40)) as (app, pilot):
        await until(pilot, is_ready(app))
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: app.query_one(StatusLine).size.height == 1)
        await pilot.resize_terminal(200, 60)
        await until(pilot, lambda: app.query_one(MemoryPanel).size.height > 0)


async def test_typing_goes_on_while_the_answer_streams(scripted, answer, opened, until):
    script = scripted([answer(LONG, hold_after=20), "Next answer."])
    async with opened(script.make) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot)
        await until(pilot, lambda: turns(app) and "word8" in turns(app)[0].text)
        await pilot.press(*"next")
        assert app.query_one(Prompt).text == "next"
        assert turns(app)[0].state == "streaming"
        await pilot.press("enter")
        await until(pilot, lambda: len(turns(app)) == 2)
        assert "waiting" in turns(app)[1].note
        script.engine.release.set()
        await until(pilot, is_done(app, 2))
        assert turns(app)[0].text == LONG
        assert turns(app)[1].text == "Next answer."


async def test_escape_keeps_the_partial_answer(scripted, answer, opened, until):
    script = scripted([answer(LONG, hold_after=5), "More."])
    async with opened(script.make) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot)
        await until(pilot, lambda: turns(app) and turns(app)[0].text.startswith("word0"))
        await pilot.press("escape")
        await until(pilot, is_done(app))
        assert turns(app)[0].text == "word0 word1 word2 word3 word4"
        assert turns(app)[0].note.startswith("stopped")
        await ask(pilot, "more")
        await until(pilot, is_done(app, 2))
        assert turns(app)[1].text == "More."


async def test_escape_withdraws_the_question_that_waits(scripted, answer, opened, until):
    script = scripted([answer(LONG, hold_after=5)])
    async with opened(script.make) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot, "one")
        await until(pilot, lambda: turns(app) and turns(app)[0].state == "streaming")
        await ask(pilot, "two")
        await pilot.press("escape")
        assert turns(app)[1].note == "withdrawn"
        assert turns(app)[0].state == "streaming"
        await ask(pilot, "three")  # there is room for one again
        assert "waiting" in turns(app)[2].note


async def test_only_one_question_waits(scripted, opened, until):
    script = scripted(["First.", "Second."], hold_prefill_after=1)
    async with opened(script.make) as (app, pilot):
        await ask(pilot, "one")
        await ask(pilot, "two")
        assert len(turns(app)) == 1
        assert app.query_one(Prompt).text == "two"
        await until(pilot, lambda: "A question is already queued" in "\n".join(shown(app)))
        script.engine.release.set()
        await until(pilot, is_done(app))
        assert turns(app)[0].text == "First."


async def test_block_map_and_documents_light_up_where_the_answer_attends(
    scripted, answer, opened, until
):
    script = scripted()
    group = script.group_of("The whale")
    script.engine._answers.append(answer(LONG, {group: 2.0}, hold_after=30))
    async with opened(script.make) as (app, pilot):
        await until(pilot, is_ready(app))
        block_map = app.query_one("#map", BlockMap)
        assert not any(block_map.levels)
        await ask(pilot)
        await until(pilot, lambda: any(block_map.levels))
        levels = block_map.levels
        assert [n for n, level in enumerate(levels) if level] == [group // 4]
        shares = app.query_one(DocumentTree).shares()
        assert shares == {"sea.txt": 0.0, "book.pdf": pytest.approx(1.0)}
        # What was read last is brightest and fades to what the answer read in all.
        await until(pilot, lambda: 0 < max(block_map.levels) < 0.75)
        script.engine.release.set()
        await until(pilot, is_done(app))
        assert max(block_map.levels) > 0.5


async def test_attention_of_every_word_does_not_outshine_the_source(
    scripted, answer, opened, until
):
    script = scripted()
    end, whale = script.group_of(" 60 of"), script.group_of("The whale")
    last = len(script.layout) // 16
    script.engine._answers.append(
        answer("The whale is white.", {end: 5.0}, {3: {whale: 1.0, 20: 0.5}}, always=[0, last])
    )
    async with opened(script.make) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot)
        await until(pilot, is_done(app))
        (turn,) = turns(app)
        assert turn.sources[0].path == "logs/book.pdf"
        view = app.flow.view
        levels = view.levels()
        assert levels[whale // 4] == 1.0
        assert levels[end // 4] == 0.0
        assert view.source_blocks == {whale // 4, 20 // 4}
        for block_map in (app.panels.map, app.panels.status_line.map):
            assert block_map._all_steps()[whale // 4] == SOURCE
        # Source, viewer and documents tell the same share.
        first, second = turn.sources
        assert "67%" in turn.listing
        assert "(67%)" in app.flow.view.readers_text(first.start_token, first.end_token)
        assert app.panels.document_tree.shares()["book.pdf"] == pytest.approx(first.score)
        assert "(33%)" in app.flow.view.readers_text(second.start_token, second.end_token)


async def test_block_under_the_mouse_is_named(scripted, opened, until):
    async with opened(scripted().make) as (app, pilot):
        await until(pilot, is_ready(app))
        await pilot.hover("#map", offset=(2, 1))
        await until(pilot, lambda: "  sea.txt:1-" in str(app.query_one("#map").border_title))
        await pilot.hover("#prompt")
        await until(pilot, lambda: "sea" not in str(app.query_one("#map").border_title))


async def test_next_question_darkens_the_map(scripted, answer, opened, until):
    script = scripted()
    script.engine._answers += [answer("One.", {3: 1.0}), answer("Two.", hold_after=0)]
    async with opened(script.make) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot)
        await until(pilot, is_done(app))
        assert any(app.query_one("#map", BlockMap).levels)
        await ask(pilot)
        await until(pilot, lambda: len(turns(app)) == 2)
        assert not any(app.query_one("#map", BlockMap).levels)


async def test_prefill_progress_fills_the_map(scripted, opened, until):
    script = scripted(hold_prefill_after=3)
    async with opened(script.make) as (app, pilot):
        block_map = app.query_one("#map", BlockMap)
        await until(pilot, lambda: round(block_map.filled, 2) == 0.75)
        assert app.query_one(TitleLine).state == "reading 75%"
        tokens = len(script.layout)
        assert f"{round(block_map.filled * tokens)} of {tokens} tokens read" in shown(app)[0]
        assert "Reading the documents" in str(app.panels.map.border_title)
        assert any("■ read so far" in line and "■ to come" in line for line in shown(app))
        assert "75%" in app.transcript.card
        script.engine.release.set()
        await until(pilot, is_ready(app))
        assert block_map.filled == 1.0
        assert f"{tokens + 1} of 65,536 tokens" in shown(app)[0]  # one opens the session
        assert str(app.panels.map.border_title).startswith("Blocks")
        opening = app.transcript.card
        assert "2 documents" in opening
        assert "logs/crew.jpg: binary" in opening


async def test_documents_are_listed_with_their_tokens(scripted, opened, until):
    script = scripted()
    async with opened(script.make) as (app, pilot):
        await until(pilot, is_ready(app))
        for span in script.layout.documents:
            name = span.document.path.removeprefix("logs/")
            (line,) = [line for line in shown(app) if name in line]
            assert f"{span.tokens:,}" in line


async def test_folders_that_hold_one_folder_share_its_line(scripted, opened, until):
    paths = ["a/b/c/one.py", "a/b/c/two.py", "a/b/d/e/three.py", "f/four.py"]
    loaded = LoadedDocuments(
        tuple(Document(p, "text", (Section(p, p, "calm sea\n", 1, 1, None),)) for p in paths), ()
    )
    async with opened(scripted(loaded=loaded).make) as (app, pilot):
        await until(pilot, is_ready(app))
        tree = [line[:24].strip(" ▾▕─") for line in shown(app)[2:10]]
        assert [name for name in tree if name] == [
            *["a/b/", "c/", "one.py", "two.py"],
            *["d/e/", "three.py", "f/", "four.py"],
        ]


async def test_memory_and_speed_are_shown(scripted, opened, until):
    async with opened(scripted(["Yes."]).make) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot)
        await until(pilot, is_done(app))
        screen = "\n".join(shown(app))
        assert "Last answer, no GPU in use" in screen
        assert "disk K/V" not in screen  # it holds nothing, and may not
        assert "/ 625.0 MiB" in screen  # the capacity for K/V in host memory
        assert "95.4 MiB" in screen  # the weights
        speed = app.panels.speed
        assert (speed.tokens_per_s, speed.ttft_s, speed.sparsity) == (40.0, 0.05, 0.03)


@pytest.mark.parametrize("of_device", [0, 32 * 2**30])
async def test_page_cache_hits_are_shown_where_pages_move(of_device, scripted, opened, until):
    script = scripted()
    figures = script.engine.memory()
    async with opened(script.make, size=(200, 60)) as (app, pilot):
        await until(pilot, is_ready(app))
        assert " cached" not in "\n".join(shown(app))
        app.show_memory(
            replace(
                figures,
                device_total_bytes=of_device,
                page_hits=3900,
                page_misses=100,
                page_bytes=8192,
            )
        )
        await pilot.pause()
        line = next(line for line in shown(app) if "pages" in line)
        assert "97.5% cached" in line
        assert ("800.0 KiB over PCIe" in line) is (of_device > 0)
        assert ("800.0 KiB from disk" in line) is (of_device == 0)


async def test_the_status_line_counts_no_copies_of_kv(scripted, opened, until):
    script = scripted()
    figures = replace(
        script.engine.memory(),
        kv_host_bytes=3 * 2**20,
        kv_disk_bytes=3 * 2**20,
        kv_device_bytes=2**20,
    )
    async with opened(script.make, size=(80, 24)) as (app, pilot):
        await until(pilot, is_ready(app))
        app.show_memory(figures)
        app._tick_panels()
        await pilot.pause()
        assert any("K/V 3.0 MiB" in line for line in shown(app))


async def test_the_first_frame_is_not_one_letter_wide(scripted, opened, monkeypatch):
    monkeypatch.setattr(Transcript, "on_resize", lambda _: None)  # not heard of its size yet
    async with opened(scripted().make) as (app, _):
        assert any(app.transcript.card.split("\n")[0] in line for line in shown(app))


async def test_columns_of_the_memory_panel_have_heads(scripted, opened, until):
    async with opened(scripted().make, size=(200, 60)) as (app, pilot):
        await until(pilot, is_ready(app))
        lines = shown(app)
        head, line = (next(n for n in lines if name in n) for name in ("Memory", "host K/V"))
        assert head.index("now") == line.index("host K/V") + 9
        assert line[head.index("lately") :].lstrip()[0] in " ▁▂▃▄▅▆▇█"
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "lately" not in "\n".join(shown(app)))


async def test_engine_error_in_an_answer_is_shown_and_the_next_question_works(
    scripted, answer, opened, until
):
    script = scripted([answer("", error=ContextFullError(9, 60, 64)), "Yes."])
    async with opened(script.make) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot)
        await until(pilot, is_done(app))
        assert turns(app)[0].note == describe(ContextFullError(9, 60, 64))
        await ask(pilot)
        await until(pilot, is_done(app, 2))
        assert turns(app)[1].text == "Yes."


async def test_model_that_does_not_load_is_shown(opened, until):
    asked = threading.Event()

    def make(progress):
        assert asked.wait(10)
        raise ModelFileError("model.gguf is damaged. Run 'hga-chat models pull'.")

    async with opened(make) as (app, pilot):
        await ask(pilot, "hm")
        asked.set()
        await until(pilot, lambda: app.query_one(TitleLine).state == "failed")
        assert "model.gguf is damaged." in app.transcript.card
        assert turns(app)[0].note == "never asked"
        await ask(pilot, "hm")
        assert len(turns(app)) == 1


@pytest.mark.parametrize("keys", [["ctrl+q"], ["ctrl+c", "ctrl+c"]])
async def test_quit_during_prefill(keys, scripted, opened, until):
    script = scripted(hold_prefill_after=2)
    async with opened(script.make) as (app, pilot):
        await until(pilot, lambda: app.query_one(TitleLine).state.startswith("reading"))
        await pilot.press(*keys)
        await until(pilot, lambda: not app.is_running)
    assert script.engine.closed


async def test_first_interrupt_cancels_and_the_second_quits(scripted, answer, opened, until):
    script = scripted([answer(LONG, hold_after=5)])
    async with opened(script.make) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot)
        await until(pilot, lambda: turns(app) and turns(app)[0].state == "streaming")
        await pilot.press("ctrl+c")
        await until(pilot, is_done(app))
        assert app.is_running
        await pilot.press("ctrl+c")
        await until(pilot, lambda: not app.is_running)
    assert script.engine.closed


async def test_text_of_documents_and_answers_is_never_interpreted(scripted, answer, opened, until):
    evil = "\x1b]0;title\x07[bold]b[/bold] \x1b[31mred\u202e"
    name = "a[red]\x1b[2J.txt"
    loaded = LoadedDocuments(
        (Document(name, "text", (Section(name, name, f"{evil} calm\n" * 20, 1, 20, None),)),), ()
    )
    script = scripted(loaded=loaded)
    script.engine._answers.append(answer(evil, {4: 1.0}))
    async with opened(script.make) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot, "[red]?")
        await until(pilot, is_done(app))
        lines = shown(app)
        screen = "\n".join(lines)
        assert not any(ord(sign) < 32 or sign == "\u202e" for line in lines for sign in line)
        assert "␛]0;title␇[bold]b[/bold] ␛[31mred<U+202E>" in screen
        assert "[red]?" in screen
        assert "a[red]␛[2J.txt:" in screen


async def test_without_documents(scripted, opened, until):
    async with opened(scripted(["Hello."], with_documents=False).make) as (app, pilot):
        await until(pilot, is_ready(app))
        assert "No documents" in app.transcript.card
        await ask(pilot)
        await until(pilot, is_done(app))
        assert turns(app)[0].text == "Hello."
        assert turns(app)[0].listing == ""


async def test_prompt_breaks_lines_and_remembers(scripted, opened, until):
    async with opened(scripted(["One.", "Two."]).make) as (app, pilot):
        await until(pilot, is_ready(app))
        prompt = app.query_one(Prompt)
        await pilot.press("a", "ctrl+j", "b", "shift+enter", "c")
        assert prompt.text == "a\nb\nc"
        await pilot.press("enter")
        await until(pilot, is_done(app))
        await ask(pilot, "two")
        await until(pilot, is_done(app, 2))
        await pilot.press("d", "up")
        assert prompt.text == "two"
        await pilot.press("up")
        assert prompt.text == "a\nb\nc"
        await pilot.press("down", "down")
        assert prompt.text == "d"


async def test_empty_question_is_not_asked(scripted, opened, until):
    async with opened(scripted().make) as (app, pilot):
        await until(pilot, is_ready(app))
        await pilot.press("space", "enter")
        assert turns(app) == []


async def test_transcript_stays_where_it_was_scrolled_to(scripted, answer, opened, until):
    lines = "\n\n".join(f"word{n}" for n in range(60))
    script = scripted([answer(lines, hold_after=110)])
    async with opened(script.make, (80, 24)) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot)
        transcript = app.query_one(Transcript)
        await until(pilot, lambda: "word30" in turns(app)[0].text)
        await until(pilot, lambda: transcript.max_scroll_y > 0)
        assert transcript.scroll_y == transcript.max_scroll_y
        await pilot.press("pageup", "pageup")
        await until(pilot, lambda: transcript.scroll_y < transcript.max_scroll_y)
        place, end = transcript.scroll_y, transcript.max_scroll_y
        script.engine.release.set()
        await until(pilot, lambda: transcript.max_scroll_y > end)
        await until(pilot, is_done(app))
        assert transcript.scroll_y == place


async def test_end_of_a_long_answer_and_its_sources_are_in_sight(scripted, answer, opened, until):
    words = " ".join(f"word{n} and more of it" for n in range(120))
    script = scripted([answer(f"{words}\n\n{words}", {3: 1.0}, hold_after=300)])
    async with opened(script.make, (80, 24), SamplingParams(max_new_tokens=2000)) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot)
        await until(pilot, lambda: turns(app) and "word50" in turns(app)[0].text)
        await pilot.resize_terminal(90, 20)
        await until(pilot, lambda: app.size.width == 90)
        transcript = app.query_one(Transcript)
        await until(pilot, lambda: transcript.scroll_y == transcript.max_scroll_y > 0)
        script.engine.release.set()
        await until(pilot, is_done(app))
        await until(pilot, lambda: "  logs/sea.txt:" in "\n".join(shown(app)))
        assert transcript.scroll_y == transcript.max_scroll_y


async def test_selected_text_is_unwrapped_and_without_bullets(scripted, opened, until):
    script = scripted([f"- {LONG}\n- last"])
    async with opened(script.make, (80, 24)) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot)
        await until(pilot, is_done(app))
        await pilot.click("#transcript", offset=(6, 9), times=2)
        await pilot.pause()
        assert app.screen.get_selected_text() == LONG
        assert app.transcript.selected_source() == LONG


async def test_a_formula_is_copied_as_it_was_written(scripted, opened, until):
    text = "The area is $\\pi r^2$ or so."
    async with opened(scripted([text]).make, (80, 24)) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot)
        await until(pilot, is_done(app))
        assert "The area is πr² or so." in "\n".join(shown(app))
        y = next(n for n, line in enumerate(shown(app)) if "The area" in line) - 1
        await pilot.click("#transcript", offset=(6, y), times=2)
        await pilot.pause()
        assert app.transcript.selected_source() == text
        (selection,) = app.screen.selections.values()
        row = selection.start.y
        # From the r to the end of "or": a formula is copied whole.
        app.screen.selections = {app.transcript: Selection(Offset(13, row), Offset(18, row))}
        assert app.transcript.selected_source() == "$\\pi r^2$ or"
        await pilot.press("f8")
        assert app.clipboard == "$\\pi r^2$ or"


def test_screen_comes_up_without_torch():
    code = "import sys, hga_chat.screen.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_saved_session_shows_its_turns_and_goes_on(scripted, answer, opened, until):
    script = scripted([answer("Calm.", {10: 1.0, 30: 0.09}), "Still calm."])

    def make(progress):
        first = script.make(progress)
        list(first.prefill())
        list(first.ask("sea", SamplingParams()))
        turns = [restored_answer(saved_turn(turn)) for turn in first.turns]
        conversation = Conversation(script.engine, script.layout, script.skipped, turns=turns)
        conversation.notes.append("Resumed; nothing needs reading again.")
        return conversation

    async with opened(make) as (app, pilot):
        await until(pilot, is_ready(app))
        (turn,) = turns(app)
        assert (turn.question, turn.text) == ("sea", "Calm.")
        (source,) = turn.sources
        assert "92% ━━━━━━  logs/sea.txt:" in turn.listing
        assert (
            app.flow.view.readers_text(source.start_token, source.end_token)
            == "Read by answer 1 (92%)"
        )
        opening = app.transcript.card
        assert "Resumed; nothing needs reading again." in opening
        assert "tok/s" not in opening
        await ask(pilot, "now")
        await until(pilot, is_done(app, 2))
        assert turns(app)[1].text == "Still calm."
        assert script.engine.prompts[1][:2] == [2, 0]  # a further question
        await pilot.press("up")
        await pilot.press("up")
        assert app.query_one(Prompt).text == "sea"


async def test_a_failed_save_stays_in_sight(scripted, opened, until, tmp_path):
    script = scripted(["Calm.", "Rough."])
    script.engine.save_error = KVStoreError("The disk is full.")
    store = SessionStore(1 << 30, tmp_path / "sessions", tmp_path / "kv")

    def make(progress):
        return keep(script.make(progress), store)

    async with opened(make) as (app, pilot):
        await until(pilot, lambda: "The disk is full." in "\n".join(shown(app)))
        for count in (1, 2):
            await ask(pilot)
            await until(pilot, is_done(app, count))
        assert len(app.transcript.notices) == 1


async def test_rename_gives_the_session_another_title(scripted, opened, until, tmp_path):
    store = SessionStore(1 << 30, tmp_path / "sessions", tmp_path / "kv")
    script = scripted()
    async with opened(lambda progress: keep(script.make(progress), store)) as (app, pilot):
        await until(pilot, lambda: app.flow.is_free and bool(store.ids()))
        (id_,) = store.ids()
        assert shown(app)[0].startswith(" hga-chat  logs  scripted")
        app.prompt.text = "/rename high tide"
        app.prompt.action_send()
        await until(pilot, lambda: bool(app.transcript.notices))
        assert store.title(id_) == "high tide"
        await until(pilot, lambda: "  high tide  scripted  " in shown(app)[0])


@pytest.mark.parametrize(
    ("width", "title"), [(120, "A Tale of Two Cities"), (64, "A Tale of T…"), (40, "")]
)
async def test_the_title_takes_what_room_is_left(width, title, scripted, opened, until):
    async with opened(scripted().make, size=(width, 24)) as (app, pilot):
        await until(pilot, is_ready(app))
        app.title_line.session = "A Tale of Two Cities"
        await pilot.pause()
        line = shown(app)[0]
        assert ("Tale" in line) == bool(title)
        assert title in line
        assert line.endswith("● ready ")


# Ticking documents on and off


def tree_lines(app):
    return [line for line in shown(app) if ".txt" in line or ".pdf" in line]


async def test_commands_and_a_key_tick_documents_off_and_on(scripted, opened, until):
    script = scripted(["Less.", "Whole."])
    async with opened(script.make) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot, "/drop sea.txt")
        await until(pilot, lambda: "Ticked off logs/sea.txt" in "\n".join(shown(app)))
        assert any("× sea.txt" in line for line in shown(app))
        await ask(pilot, "/files")
        await until(pilot, lambda: "[x]" in "\n".join(shown(app)))
        assert any("[ ]" in line and "logs/sea.txt" in line for line in shown(app))
        await ask(pilot, "sea")
        await until(pilot, is_done(app))
        assert turns(app)[-1].text == "Less."
        app.query_one(DocumentTree).focus()
        await pilot.press("g", "x")
        await until(pilot, lambda: not any("× sea.txt" in line for line in shown(app)))
        await pilot.press("x")
        await until(pilot, lambda: any("× sea.txt" in line for line in shown(app)))
        await pilot.press("x")
        app.query_one(Prompt).focus()
        await ask(pilot, "sea")
        await until(pilot, is_done(app, 2))
        less, whole = script.engine.left_out_of
        assert less
        assert not whole
        await ask(pilot, "/drop whale")
        await until(pilot, lambda: "No document is called whale." in "\n".join(shown(app)))


async def test_an_answer_about_a_named_file_says_that_it_was_limited(scripted, opened, until):
    async with opened(scripted(["White."]).make, (80, 24)) as (app, pilot):
        await until(pilot, is_ready(app))
        app.query_one(Prompt).fill("Which colour? @book.pdf")
        await pilot.press("escape", "enter")
        await until(pilot, is_done(app))
        assert "Limited to logs/book.pdf." in "\n".join(shown(app))


async def test_ticks_are_saved_and_shown_on_resume(scripted, opened, until, tmp_path):
    store = SessionStore(2**30, tmp_path / "sessions", tmp_path / "kv")
    script = scripted()
    async with opened(lambda p: keep(script.make(p), store)) as (app, pilot):
        await until(pilot, is_ready(app))
        await ask(pilot, "/drop sea.txt")
        await until(pilot, lambda: any("× sea.txt" in line for line in shown(app)))
    (id_,) = store.ids()
    assert store.turns(id_).dropped == ("logs/sea.txt",)
    saved = store.open(id_)
    again = scripted()

    def resume(progress):
        return Conversation(again.engine, again.layout, (), (), None, saved.dropped)

    async with opened(resume) as (app, pilot):
        await until(pilot, is_ready(app))
        assert any("× sea.txt" in line for line in shown(app))
    saved.close()


async def test_a_chat_that_watches_tells_of_changed_files(
    scripted, opened, until, tmp_path, monkeypatch
):
    monkeypatch.setattr("hga_chat.screen.engine.thread.WATCH_INTERVAL_S", 0.05)
    store = SessionStore(2**30, tmp_path / "sessions", tmp_path / "kv")
    script, folder = scripted(), tmp_path / "logs"
    folder.mkdir()
    for name in ("sea.txt", "book.pdf"):
        (folder / name).touch()
        os.utime(folder / name, (1, 1))

    def make(progress):
        conversation = keep(script.make(progress), store)
        conversation.given = {"logs": folder, "other": tmp_path / "other"}
        conversation.watches = True
        return conversation

    async with opened(make) as (app, pilot):
        await until(pilot, is_ready(app))
        assert "new logs" not in "\n".join(shown(app))
        (folder / "new.txt").touch()
        await until(pilot, lambda: "new logs/new.txt" in "\n".join(shown(app)))
        assert "/reload" in "\n".join(shown(app))
        await ask(pilot, "/reload")
        await until(pilot, lambda: "cannot be changed here" in "\n".join(shown(app)))


async def test_changed_files_are_named_below_the_turns_of_a_resumed_session(
    scripted, opened, until, tmp_path
):
    store = SessionStore(2**30, tmp_path / "sessions", tmp_path / "kv")
    script, folder = scripted([LONG]), tmp_path / "logs"
    folder.mkdir()

    def make(progress):
        conversation = keep(script.make(progress), store)
        for _ in conversation.ask("Is it?", SamplingParams()):
            pass
        conversation.save()
        (folder / "new.txt").touch()
        conversation.given = {"logs": folder, "other": tmp_path / "other"}
        return conversation

    async with opened(make, (80, 24)) as (app, pilot):
        await until(pilot, is_ready(app))
        await until(pilot, lambda: "new.txt. Answers" in "\n".join(shown(app)))
