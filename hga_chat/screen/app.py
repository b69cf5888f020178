"""The application: assembles the parts and acts on keys, commands and the mouse."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from hga_chat.display import displayable
from hga_chat.documents.files import file_of
from hga_chat.screen import clipboard, editor
from hga_chat.screen.alert import LONG_S, alert
from hga_chat.screen.changes import Change, Offer
from hga_chat.screen.commands import Command, PaletteCommands, is_command, parse
from hga_chat.screen.drawing.figures import count
from hga_chat.screen.drawing.themes import NIGHT, SIXTEEN, THEMES, PlainSigns, is_plain, theme_for
from hga_chat.screen.engine.thread import Consider, EngineThread, Progress
from hga_chat.screen.flow import Flow
from hga_chat.screen.keys import key_name
from hga_chat.screen.panels import Panels
from hga_chat.screen.trace.map_view import MODES
from hga_chat.screen.transcript.finder import Finder
from hga_chat.screen.transcript.widget import Transcript
from hga_chat.screen.widgets.block_map import BlockMap
from hga_chat.screen.widgets.confirm import Confirm
from hga_chat.screen.widgets.documents import DocumentTree
from hga_chat.screen.widgets.help import Help
from hga_chat.screen.widgets.key_line import KeyLine
from hga_chat.screen.widgets.prompt import Prompt
from hga_chat.screen.widgets.viewer import Place, Viewer

if TYPE_CHECKING:
    from hga_chat.conversation.conversation import Conversation
    from hga_chat.documents import DocumentTokens
    from hga_engine.config import SamplingParams
    from hga_engine.memory.figures import MemoryFigures

T = TypeVar("T")
TICK_S = 1 / 10
"""Time between two looks for reports of the engine."""
PANELS_S = 1 / 2
"""Time between two frames of the panels; drawing more often slows an answer on the CPU."""
OFFSET_S = TICK_S / 2
"""Delay of panels against words: one frame draws one rectangle around everything that changed."""
NO_LAYERS = "Layer data is kept for recent answers only."
TWICE_S = 2.0
"""Time within which a second Ctrl+C quits."""


class ChatApp(App[None]):
    """Panels on the left, the transcript beside them, the prompt below."""

    TITLE = "hga-chat"
    CSS_PATH = "app.tcss"
    COMMANDS: ClassVar = {PaletteCommands}
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (160, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (30, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "help", "Help", priority=True),
        Binding("question_mark", "help", "Help", show=False),
        Binding("escape", "leave_off", "Stop"),
        Binding("escape", "to_prompt", "Prompt", show=False),
        Binding("ctrl+f", "find", "Find", priority=True),
        Binding("ctrl+o", "sources", "Sources", priority=True),
        Binding("ctrl+r", "retry", "Ask again", priority=True, show=False),
        Binding("f2", "panel('documents')", "Documents", priority=True, show=False),
        Binding("f3", "panel('map')", "Map", priority=True, show=False),
        Binding("f4", "panel('memory')", "Memory", priority=True, show=False),
        Binding("f5", "map_mode", "What the map shows", show=False),
        Binding("f6", "next_theme", "Theme", priority=True, show=False),
        Binding("f7", "edit", "Edit the last question", priority=True, show=False),
        Binding("f8", "copy", "Copy the answer", priority=True, show=False),
        Binding("slash", "find('', True)", "Find", show=False),
        Binding("n", "find_next(1)", "Next match", show=False),
        Binding("N", "find_next(-1)", "Previous match", show=False),
        Binding("1", "suggested(1)", "Ask question 1", show=False),
        Binding("2", "suggested(2)", "Ask question 2", show=False),
        Binding("3", "suggested(3)", "Ask question 3", show=False),
        Binding("q", "leave", "Quit", show=False),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False),
        Binding("ctrl+q", "quit", "Quit", priority=True),
        Binding("ctrl+c", "interrupt", "Quit", show=False, system=True),
    ]

    def __init__(
        self,
        make_conversation: "Callable[[Progress], Conversation]",
        sampling: "SamplingParams",
        theme: str = "auto",
        plain: bool | None = None,
        *,
        alerts: bool = True,
        first_message: bool | None = False,
        consider: Consider | None = None,
    ) -> None:
        """Set up; loading begins once the screen is shown.

        Args:
            make_conversation: see ``run_screen``.
            sampling: how answers are sampled.
            theme: a name, or ``auto``.
            plain: draw in ASCII; None: if the terminal asks for it.
            alerts: call the user back when something took long.
            first_message: see ``run_screen``.
            consider: says what a change of the session costs; None: nothing can be changed.
        """
        self.change: Change | None = None
        """The change to make, for which the app has ended."""
        self._environment = dict(os.environ)
        chosen = theme_for(theme, self._environment)
        # For NO_COLOR, Textual can only leave out the terminal's own colours.
        super().__init__(ansi_color=True if "NO_COLOR" in self._environment else None)
        self._first_theme = SIXTEEN if "NO_COLOR" in self._environment else chosen
        self._is_plain = is_plain(self._environment) if plain is None else plain
        if self._is_plain:
            self._filters.append(PlainSigns())
        self.engine = EngineThread(
            make_conversation, sampling, first_message=first_message, consider=consider
        )
        self.panels = Panels()
        self.title_line = self.panels.title_line
        self.transcript, self.prompt = Transcript(), Prompt()
        self.finder = Finder(self.transcript, "the conversation")
        self.flow = Flow(self, self.engine)
        self._panels_drawn = time.monotonic()
        self._interrupted = -TWICE_S
        self._alerts = alerts
        self._is_away: bool | None = None
        """Whether another window has the focus; None until the terminal tells."""

    def compose(self) -> ComposeResult:
        """Lay out the widgets; the style sheet leaves some out on a small screen."""
        yield self.title_line
        with Horizontal(id="body"):
            yield self.panels.side
            with Vertical(id="main"):
                yield self.transcript
                yield self.finder
        yield self.panels.status_line
        yield self.prompt.offered
        yield self.prompt
        yield KeyLine()

    def on_mount(self) -> None:
        """Show the first screen, then start the engine."""
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = self._first_theme.name
        self.panels.draw_plain(self._is_plain)
        self.flow.start()
        self.prompt.focus()
        self.prompt.placeholder = "Ask about the documents; / for commands, @ for files"
        self.set_interval(TICK_S, self._tick)
        self.set_timer(OFFSET_S, lambda: self.set_interval(PANELS_S, self._tick_panels))
        self.call_after_refresh(self.engine.start)
        self._quit_on_signals()

    def on_unmount(self) -> None:
        """Stop the engine, however the screen ends."""
        self.engine.stop()

    def _quit_on_signals(self) -> None:
        """Quit on signals, so that the terminal is restored."""
        assert self._loop is not None
        for name in ("SIGTERM", "SIGHUP"):
            try:
                self._loop.add_signal_handler(getattr(signal, name), self.exit)
            except (AttributeError, NotImplementedError, RuntimeError, ValueError):
                return

    # The view that the flow of questions and answers changes

    def _tick(self) -> None:
        for report in self.engine.take():
            self.flow.show(report)
        self.transcript.refine()

    def _tick_panels(self) -> None:
        now = time.monotonic()
        self.panels.fade(now - self._panels_drawn, draw=not self.flow.has_progress)
        self._panels_drawn = now
        self.flow.show_progress()
        self.panels.draw_memory()

    def lay_out(self, layout: "DocumentTokens | None") -> None:
        """Show the documents."""
        self.panels.lay_out(layout, self.flow.view)
        if layout is None:
            self.prompt.placeholder = "Ask about anything; / for commands"
        else:
            self.prompt.paths = [span.document.path for span in layout.documents]

    def show_ticks(self, dropped: Sequence[str]) -> None:
        """Show which documents are ticked off."""
        self.panels.document_tree.show_ticks(dropped)

    def fill(self, fraction: float) -> None:
        """Show how much of the documents is prefilled."""
        self.panels.fill(fraction, self.flow.view)

    def show_trace(self, newest: Sequence[float] | None = None) -> None:
        """Show the selected trace; the mass [bins] of the newest tokens glows."""
        self.panels.show_trace(self.flow.view, newest)

    def redraw_trace(self) -> None:
        """Redraw the selected trace, clearing the glow."""
        self.panels.clear_trace()
        self.show_trace()

    def show_memory(self, figures: "MemoryFigures") -> None:
        """Show memory use; while an answer streams, with the next frame of the panels."""
        self.panels.hold_memory(figures)
        if self.flow.turn is None:
            self.panels.draw_memory()

    def show_speed(self, tokens_per_s: float, ttft_s: float, sparsity: float) -> None:
        """Show how fast the answer comes."""
        self.panels.show_speed(tokens_per_s, ttft_s, sparsity)

    def alert(self, text: str, seconds: float) -> None:
        """Call the user back after something that took long."""
        if self._alerts and seconds >= LONG_S and self._driver is not None:
            self._driver.write(alert(text, self._environment, is_away=self._is_away))

    def on_app_blur(self) -> None:
        """Note that another window has the focus."""
        self._is_away = True

    def on_app_focus(self) -> None:
        """Note that the terminal has the focus."""
        self._is_away = False

    # What is typed

    def on_prompt_sent(self, message: Prompt.Sent) -> None:
        """Run a command, or ask a question."""
        text = message.question
        if is_command(text):
            self._command(text)
        elif self._ask(self.flow.suggestion(text) or text):
            self.prompt.text = ""

    def action_suggested(self, number: int) -> None:
        """Ask one of the questions of the first message, counted from 1."""
        question = self.flow.suggestion(f"{number}")
        if question is not None:
            self._ask(question)

    def _ask(self, question: str) -> bool:
        """Ask a question; return whether one could be taken."""
        refusal = self.flow.refusal()
        if refusal:
            self.notify(refusal, severity="warning")
            return False
        self.prompt.remember(question)
        self.flow.send(question)
        return True

    def _command(self, text: str) -> None:
        found = parse(text)
        if found is None:
            word = displayable(text.split()[0])
            self.notify(f"Unknown command {word}. /help lists all commands.", severity="warning")
            return
        self.prompt.text = ""
        self.carry_out(*found)

    def carry_out(self, command: Command, argument: str = "") -> None:
        """Run a command."""
        if "(" in command.action:
            self.call_later(self.run_action, command.action)
            return
        action = getattr(self, f"action_{command.action}")
        self.call_later(action, *([argument] if command.argument else []))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """Return whether a key does something now; the footer leaves out others."""
        return self._is_of_use(action)

    def _is_of_use(self, action: str) -> bool:
        turns = self.transcript.turns
        match action:
            case "leave_off":
                return self.flow.is_stoppable
            case "find":
                return bool(turns)
            case "sources":
                return any(turn.sources for turn in turns)
            case "copy":
                is_selected = bool(self.screen.get_selected_text())
                return is_selected or any(turn.text for turn in turns)
            case "map_mode":
                return any(turn.trace.total for turn in turns)
            case "step_layer":
                return self.flow.view.num_layers > 0
        return True

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return the colours to use before the themes are registered."""
        return NIGHT.variables

    def get_key_display(self, binding: Binding) -> str:
        """Return the name of a key for the footer."""
        return key_name(binding)

    def action_to_prompt(self) -> None:
        """Do the same as ``leave_off``; for Escape while there is nothing to stop."""
        self.action_leave_off()

    def action_leave_off(self) -> None:
        """Deselect a word or piece; otherwise stop the answer and go to the prompt."""
        if self.transcript.has_focus and self.transcript.leave_token():
            return
        if not self.flow.cancel():
            self.screen.clear_selection()
        self.prompt.focus()

    def action_interrupt(self) -> None:
        """Copy the selection, stop the answer or clear the prompt; quit the second time."""
        now = time.monotonic()
        is_second = now - self._interrupted < TWICE_S
        self._interrupted = now
        if not is_second and self.screen.get_selected_text():
            self._interrupted = -TWICE_S
            self.action_copy()
            self.screen.clear_selection()
        elif is_second:
            self.exit()
        elif self.flow.turn and self.flow.state != "stopping":
            self.flow.cancel()
        else:
            self.prompt.clear()
            self.notify("Ctrl+C again quits.", timeout=TWICE_S)

    async def action_quit(self) -> None:
        """Quit."""
        self.engine.stop()
        self.exit()

    async def action_leave(self) -> None:
        """Quit, unless that would interrupt something."""
        if self.flow.is_free or self.flow.state == "failed":
            await self.action_quit()
        else:
            self.notify("Still working. Ctrl+Q quits anyway.")

    def action_help(self) -> None:
        """Show keys and commands."""
        if not isinstance(self.screen, Help):
            self.push_screen(Help())

    def action_find(self, text: str = "", hands_over: bool = False) -> None:
        """Search the transcript."""
        self.finder.open(text, hands_over=hands_over)

    def action_find_next(self, by: int) -> None:
        """Go to another match."""
        self.finder.action_step(by)

    def action_page_transcript(self, pages: int) -> None:
        """Scroll the transcript without leaving the prompt."""
        if pages < 0:
            self.transcript.scroll_page_up(animate=False)
        else:
            self.transcript.scroll_page_down(animate=False)

    def action_edit(self) -> None:
        """Move the last question back into the prompt."""
        question = self.flow.take_back()
        if question is None:
            self.notify("There is no question to edit now.", severity="warning")
        else:
            self.prompt.fill(question)

    def action_retry(self, _argument: str = "") -> None:
        """Ask the last question again."""
        remark = self.flow.retry()
        if remark is None:
            self.notify("There is no question to ask again now.", severity="warning")
        else:
            self.notify(remark)

    def action_verify(self) -> None:
        """Measure whether the last answer depends on its sources."""
        refusal = self.flow.verify()
        if refusal:
            self.notify(refusal, severity="warning")

    def action_clear(self) -> None:
        """Forget all turns."""
        turns = len(self.transcript.turns)
        if not self.flow.clear():
            self.notify("Wait until the engine is ready.", severity="warning")
        elif turns:
            self.notify(f"{count(turns, 'turn')} forgotten. /undo brings them back.")

    def action_undo(self) -> None:
        """Bring back what /clear, /edit or /retry has removed."""
        if not self.flow.is_free:
            self.notify("Wait until the engine is ready.", severity="warning")
        elif not self.flow.undo():
            self.notify("There is nothing to undo.", severity="warning")

    def action_think(self, what: str = "") -> None:
        """Ask the model to think before it answers, or not to; without a word, change it."""
        from hga_chat.conversation.thought import CANNOT_THINK

        word = what.lower()
        if not self.flow.can_think:
            self.notify(CANNOT_THINK, severity="warning")
        elif word not in ("", "on", "off"):
            self.notify("Type /think on or /think off.", severity="warning")
        else:
            self.engine.thinks = word == "on" if word else not self.engine.thinks
            now = "thinks before it answers" if self.engine.thinks else "answers at once"
            self.notify(f"From the next question on, the model {now}.")

    def action_files(self) -> None:
        """List the documents with their ticks."""
        self.engine.tick("files")

    def action_drop(self, name: str = "") -> None:
        """Tick a document off."""
        self._tick_files("drop", name)

    def action_add(self, name: str = "") -> None:
        """Tick a document on."""
        self._tick_files("add", name)

    def _tick_files(self, what: Literal["add", "drop"], name: str) -> None:
        if name:
            self.engine.tick(what, name.removeprefix("@"))
        else:
            self.notify(f"Add a file or folder: /{what} FILE.", severity="warning")

    def on_document_tree_ticked(self, message: DocumentTree.Ticked) -> None:
        """Tick a document on or off."""
        self.engine.tick("add" if message.is_dropped else "drop", message.path)

    def action_rename(self, title: str = "") -> None:
        """Give the session another title."""
        if title:
            self.engine.rename(title)
        else:
            self.notify("Add the new title: /rename TITLE.", severity="warning")

    def action_budget(self, percent: str = "") -> None:
        """Let answers attend to another share of the session."""
        try:
            share = float(percent.removesuffix("%")) if percent else None
        except ValueError:
            share = 0.0
        if share is not None and not 0 < share <= 100:
            self.notify("Add a percentage of the text: /budget 10.", severity="warning")
        else:
            self.engine.set_budget(share)

    # Changes that take another engine

    def action_context(self, tokens: str = "") -> None:
        """Let the session hold more tokens, or fewer."""
        self._consider("context", tokens, "Add the number of tokens: /context 65536.")

    def action_reload(self) -> None:
        """Load the files that have changed since the documents were read."""
        self._consider("documents", "files", "")

    def action_system(self, text: str = "") -> None:
        """Give the model other instructions."""
        self._consider("system", text, "Add the instructions: /system Answer in one sentence.")

    def action_model(self, name: str = "") -> None:
        """Ask another model about the documents."""
        self._consider("model", name, "Add the model's name: /model NAME.")

    def _consider(
        self,
        what: Literal["model", "context", "system", "documents"],
        value: str,
        usage: str,
    ) -> None:
        if not value:
            self.notify(usage, severity="warning")
        elif not self.flow.consider(Change(what, value)):
            self.notify("Wait until the engine is ready.", severity="warning")

    def offer(self, offer: Offer) -> None:
        """Say what a change costs, and make it if it is free or the user agrees."""
        if offer.change is None:
            self.notify(displayable(offer.text), severity="warning")
        elif offer.is_asked:
            self.push_screen(Confirm(offer.text), partial(self._make, offer.change))
        else:
            self._make(offer.change, True)

    def _make(self, change: Change, agreed: bool | None) -> None:
        if agreed:
            self.change = change
            self.engine.stop()
            self.exit()

    def action_export(self, name: str = "") -> None:
        """Write the conversation to a file."""
        if not self.transcript.turns:
            self.notify("There is nothing to export yet.", severity="warning")
            return
        self.flow.export(Path(name or "conversation.md").expanduser())

    # Copying

    def action_copy(self, what: str = "answer") -> None:
        """Copy the selection, the selected piece or an answer, as written."""
        selected = self.screen.get_selected_text()
        piece, chosen = self.transcript.cursor, self.transcript.chosen_turn
        turns = self.transcript.turns
        if selected:
            self.copy_text(self.transcript.selected_source() or selected)
        elif what == "block" and piece is not None:
            self.copy_text(piece.source)
        elif chosen is not None and chosen.text:
            self.copy_text(chosen.text)
        elif turns and turns[-1].text:
            self.copy_text(turns[-1].text)
        else:
            self.notify("There is no answer to copy yet.", severity="warning")

    def copy_text(self, text: str) -> None:
        """Copy a text and show what is known about the outcome."""
        self.notify(self._copy(text))

    def copy_to_clipboard(self, text: str) -> None:
        """Copy a text for Textual's own widgets."""
        self._copy(text)

    def _copy(self, text: str) -> str:
        self._clipboard = text
        driver = self._driver
        write = driver.write if driver is not None else lambda _: None
        return clipboard.copy(text, write, self._environment)

    # Panels

    def action_panel(self, name: str) -> None:
        """Fold a panel away or show it; on a small screen show it alone beside the transcript."""
        is_small = self.screen.has_class("-narrow") or self.screen.has_class("-low")
        panel = self.panels.toggle(name, is_small=is_small)
        if panel is not None:
            self.call_after_refresh(panel.focus)
        elif is_small:
            self.prompt.focus()

    def action_next_theme(self, name: str = "") -> None:
        """Change the colours."""
        names = [theme.name for theme in THEMES]
        if name and name not in names:
            self.notify(f"Themes: {', '.join(names)}.", severity="warning")
            return
        here = names.index(self.theme) if self.theme in names else -1
        self.theme = name or names[(here + 1) % len(names)]
        self.panels.map.refresh(layout=True)

    # Traces and sources

    def action_map_mode(self) -> None:
        """Show the answer, all answers, or what all of them missed."""
        if not self._is_of_use("map_mode"):
            self.notify("There is no answer yet.", severity="warning")
            return
        view = self.flow.view
        view.mode = MODES[(MODES.index(view.mode) + 1) % len(MODES)]
        self.redraw_trace()

    def action_step_layer(self, by: int) -> None:
        """Show another layer of the model."""
        view = self.flow.view
        if not view.num_layers:
            self.notify(NO_LAYERS, severity="warning")
            return
        view.step_layer(by)
        self.redraw_trace()

    def action_layer(self, number: str = "") -> None:
        """Show one layer of the model; without a number all of them together."""
        view = self.flow.view
        if number and not (number.isdecimal() and 0 < int(number) <= view.num_layers):
            known = f"Layers: 1 to {view.num_layers}." if view.num_layers else NO_LAYERS
            self.notify(known, severity="warning")
            return
        view.show_layer(int(number or 0))
        self.redraw_trace()

    def on_transcript_pointed(self, message: Transcript.Pointed) -> None:
        """Show the trace of an answer or of one of its words."""
        turns = self.transcript.turns
        view = self.flow.view
        view.turn = message.turn or (turns[-1] if turns else None)
        view.token = message.token if message.turn else None
        self.redraw_trace()

    def on_block_map_pointed(self, message: BlockMap.Pointed) -> None:
        """Name the block under the mouse or the cursor."""
        self.panels.point(message.block, self.flow.view)

    def on_block_map_opened(self, message: BlockMap.Opened) -> None:
        """Open the passage of a block."""
        grid = self.flow.view.grid
        found = grid.passage(message.block)
        if found is not None:
            places = [Place(*grid.tokens_of(message.block), found.place)]
            self._view(places, 0, in_editor=message.in_editor)

    def on_transcript_source_opened(self, message: Transcript.SourceOpened) -> None:
        """Open a source."""
        places = [Place(s.start_token, s.end_token, s.place) for s in message.turn.sources]
        self._view(places, message.number, in_editor=message.in_editor)

    def on_document_tree_opened(self, message: DocumentTree.Opened) -> None:
        """Open a document at its beginning, or at a chapter; the others are a key away."""
        if self.flow.layout is None:
            return
        span = self.flow.layout.documents[message.number]
        path = span.document.path
        if message.chapter is None:
            places = [Place(span.start, span.end, path, is_marked=False)]
        else:
            places = [
                Place(chapter.start, chapter.end, f"{path}, {chapter.label}", is_marked=False)
                for chapter in span.chapters
            ]
        self._view(places, message.chapter or 0, in_editor=message.in_editor)

    def action_sources(self, number: str = "") -> None:
        """Open a source of the selected answer, or of the last one that has any."""
        chosen = self.transcript.chosen_turn
        turns = [chosen] if chosen else self.transcript.turns[::-1]
        turn = next((turn for turn in turns if turn.sources), None)
        if turn is None:
            self.notify("No answer has sources yet.", severity="warning")
            return
        at = int(number) - 1 if number.isdecimal() else 0
        places = [Place(s.start_token, s.end_token, s.place) for s in turn.sources]
        self._view(places, min(max(at, 0), len(places) - 1))

    def _view(self, places: Sequence[Place], number: int, *, in_editor: bool = False) -> None:
        layout, view = self.flow.layout, self.flow.view
        if in_editor:
            self._edit(places[number].start)
            return
        if layout is None or isinstance(self.screen, Viewer):
            return
        brightness = view.grid.brightness(view.mass)
        readers = view.readers_text
        self.push_screen(
            Viewer(layout, places, number, brightness, readers, self._edit, is_plain=self._is_plain)
        )

    # The user's editor

    def _edit(self, token: int) -> None:
        """Open the line of a token in the user's editor."""
        layout = self.flow.layout
        found = layout.locate(token, token + 1) if layout is not None else []
        if not found:
            return
        (passage,) = found
        name = displayable(passage.path)
        path = file_of(passage.path, self.flow.given)
        if path is None or not path.is_file():
            self.notify(f"{name} is no longer there.", severity="warning")
        elif passage.start_line is None:
            self.notify(f"{name} is not a text file; an editor cannot open it.", severity="warning")
        else:
            self._in_editor(
                lambda command: editor.run(editor.at_line(command, path, passage.start_line))
            )

    def action_edit_prompt(self) -> None:
        """Write the prompt in the user's editor."""
        text = self.prompt.text
        written = self._in_editor(lambda command: editor.edit_text(command, text))
        if written is not None:
            self.prompt.fill(written)

    def _in_editor(self, use: Callable[[list[str]], T]) -> T | None:
        """Leave the terminal to the user's editor; return None if that fails."""
        command = editor.editor(self._environment)
        if not command:
            self.notify("No editor found. Set EDITOR to the one to use.", severity="warning")
            return None
        try:
            with self.suspend():
                return use(command)
        except (OSError, SuspendNotSupported) as error:
            self.notify(f"The editor failed: {displayable(str(error))}.", severity="warning")
            return None
