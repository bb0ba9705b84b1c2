"""The playground's page, and the engine behind it."""

import asyncio
import html
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.local_page import gr
from pipeline.config import JobConfig
from pipeline.engines import Engine
from pipeline.errors import ConfigError, PipelineError
from pipeline.models import Geometry, generation_names, generation_of, load_generation
from pipeline.report.playground_session import (
    Answers,
    Choice,
    answers_html,
    ask,
    job_of,
    lengths_of,
    modes_of,
    prompt_of,
    recipe_yaml,
    tones_of,
)

MAX_SAMPLES = 8


class PlaygroundSession:
    """An engine on its own event loop, usable from any thread."""

    def __init__(self, job: JobConfig, engine: Engine, geometry: Geometry) -> None:
        self.job = job
        self._engine = engine
        self._geometry = geometry
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def ask(self, job: JobConfig, data: bytes) -> Answers:
        """Like `pipeline.report.playground_session.ask`; blocks the calling thread."""
        answers = ask(self._engine, job, self._geometry, data)
        return asyncio.run_coroutine_threadsafe(answers, self._loop).result()

    def close(self) -> None:
        """Close the engine, then the loop that it ran on."""
        self._engine.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def build_app(session: PlaygroundSession, pictures: Sequence[Path]) -> gr.Blocks:
    """Return the page: choices on the left, the prompt, the answers and the recipe on the right."""
    first = generation_of(session.job.model).name
    with gr.Blocks(title="JoyFleet playground", analytics_enabled=False) as app:
        gr.Markdown(f"## JoyFleet playground\n`{session.job.model.id}`, with the requests of a run")
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                # The file itself, since a run decodes the source's own bytes.
                image = gr.Image(type="filepath", image_mode=None, label="Image", height=300)
                gr.Examples([[str(path)] for path in pictures], [image], label="From the source")
                choice = _choices(first)
            with gr.Column(scale=2, min_width=320):
                prompt = gr.Textbox(label="Prompt, as the model sees it", lines=3, interactive=False)
                system = gr.Textbox(label="System", lines=1, interactive=False)
                with gr.Row():
                    samples = gr.Slider(1, MAX_SAMPLES, value=3, step=1, label="Samples")
                    seed = gr.Number(value=session.job.seed, precision=0, minimum=0, label="Seed")
                go = gr.Button("Caption", variant="primary")
                answers = gr.HTML(label="Answers")
                recipe = gr.Code(language="yaml", label="The same, for a job file", interactive=False)
        generation, mode, *rest = choice

        def show_prompt(*picked: Any) -> tuple[str, str, str]:  # noqa: ANN401 - values of the controls
            return _prompt(session, picked)

        def caption(path: str | None, number: float, start: float, *picked: Any) -> str:  # noqa: ANN401 - as above
            return _captions(session, path, (int(number), int(start)), picked)

        shown = (show_prompt, choice, [prompt, system, recipe])
        # A new generation or mode has other tones, lengths and options, so the choices are updated before the prompt.
        generation.input(_on_generation, [generation], [mode, *rest[:3]], show_progress="hidden").then(
            *shown, show_progress="hidden"
        )
        mode.input(_on_mode, [generation, mode], rest[:2], show_progress="hidden").then(*shown, show_progress="hidden")
        changes = [app.load, *(control.change for control in rest)]
        gr.on(changes, *shown, api_name="prompt", show_progress="hidden")
        go.click(caption, [image, samples, seed, *choice], answers, api_name="caption")
    return app


def _choices(generation: str) -> list[Any]:
    """The controls in the order of `Choice`'s fields."""
    modes = modes_of(generation)
    tones, lengths = tones_of(generation, modes[0]), lengths_of(generation, modes[0])
    catalogues = map(load_generation, generation_names())
    served = [catalogue.name for catalogue in catalogues if catalogue.servable and catalogue.modes]
    return [
        gr.Radio(served, value=generation, label="Generation"),
        gr.Dropdown(modes, value=modes[0], label="Mode"),
        gr.Dropdown(tones, value=tones[0], label="Tone"),
        gr.Dropdown(lengths, value=lengths[0], label="Length", allow_custom_value=True),
        gr.Dropdown(list(load_generation(generation).options), value=[], multiselect=True, label="Options"),
        gr.Textbox(label="Name, for refer-by-name"),
    ]


def _on_generation(generation: str) -> list[Any]:
    modes = modes_of(generation)
    options = gr.update(choices=list(load_generation(generation).options), value=[])
    return [gr.update(choices=modes, value=modes[0]), *_on_mode(generation, modes[0]), options]


def _on_mode(generation: str, mode: str) -> list[Any]:
    tones, lengths = tones_of(generation, mode), lengths_of(generation, mode)
    return [gr.update(choices=tones, value=tones[0]), gr.update(choices=lengths, value=lengths[0])]


def _prompt(session: PlaygroundSession, picked: Sequence[Any]) -> tuple[str, str, str]:
    choice = _choice(picked)
    try:
        prompt, system = prompt_of(session.job, choice)
    except ConfigError as err:
        return str(err), "", ""
    return prompt, system, recipe_yaml(session.job, choice)


def _captions(session: PlaygroundSession, path: str | None, drawn: tuple[int, int], picked: Sequence[Any]) -> str:
    """Return the answers as HTML. An error is shown in the page, and the server continues."""
    if path is None:
        raise gr.Error("pick an image first", print_exception=False)
    try:
        job = job_of(session.job, _choice(picked), *drawn)
        return answers_html(session.ask(job, Path(path).read_bytes()))
    except PipelineError as err:
        raise gr.Error(html.escape(str(err)), print_exception=False) from err


def _choice(picked: Sequence[Any]) -> Choice:
    generation, mode, tone, length, options, name = picked
    return Choice(
        generation=generation, mode=mode, tone=tone, length=str(length), options=tuple(options or ()), name=name or ""
    )
