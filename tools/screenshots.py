"""Takes the pictures of the README: a real session over the sample handbook.

    python tools/screenshots.py assets/screens

writes SVG files; a browser or ``rsvg-convert`` turns them into PNG.
"""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from hga_chat.cli.prepare import prepare, start_on_documents
from hga_chat.output import Output
from hga_chat.screen.app import ChatApp
from hga_chat.screen.widgets.prompt import Prompt
from hga_chat.settings import load_settings

HANDBOOK = Path(__file__).parents[1] / "assets" / "samples" / "handbook.pdf"
QUESTIONS = (
    "What is the wind speed at which the dome must be closed?",
    "Who made the laser comb of PLOVER?",
)
SIZES = {"wide": (120, 40), "small": (80, 24)}


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Wait for the application to get somewhere."""
    while not condition():
        await pilot.pause(0.05)


def in_state(app: ChatApp, state: str) -> bool:
    """What the title line says the application is doing."""
    return app._state.startswith(state)


async def take(name: str, size: tuple[int, int], folder: Path) -> None:
    """One session at one size: while it reads, while it answers, and at the end."""
    settings, output = load_settings({"no_save": True}), Output(quiet=True)
    prepared = prepare([str(HANDBOOK)], settings, output)
    start = start_on_documents(prepared, [str(HANDBOOK)], settings, output)
    app = ChatApp(start.open, settings.sampling())
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: in_state(app, "reading"))
        await pilot.pause(12)
        app.save_screenshot(str(folder / f"{name}-reading.svg"))
        await until(pilot, lambda: in_state(app, "ready"))
        for number, question in enumerate(QUESTIONS, 1):
            app.query_one(Prompt).text = question
            await pilot.press("enter")
            await until(pilot, lambda: in_state(app, "answering"))
            await pilot.pause(0.3)
            app.save_screenshot(str(folder / f"{name}-answering.svg"))
            await until(pilot, lambda: in_state(app, "ready"))
            await pilot.pause(0.3)
            app.save_screenshot(str(folder / f"{name}-answer-{number}.svg"))


def main() -> None:
    """Take all pictures."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        asyncio.run(take(name, size, folder))


if __name__ == "__main__":
    main()
