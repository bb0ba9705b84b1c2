"""What the schedule of a corpus says about a source in an epoch, as the renderer takes it: a weight, and the tasks."""

from pipeline.config import CorpusConfig, RenderConfig, StyleConfig
from pipeline.config.corpus_filters import tasks_in
from pipeline.config.render_config import SECTIONS
from schemas.corpus_row import Task


def render_in(config: CorpusConfig, source: str, epoch: int) -> RenderConfig:
    """Return how the records of a source are rendered in an epoch: tasks that are not drawn have the weight 0."""
    tasks = tasks_in(config.schedule, source, epoch)
    if not tasks:
        return config.render
    styles = {name: _only(style, frozenset(tasks)) for name, style in config.render.styles.items()}
    return config.render.model_copy(update={"styles": styles})


def _only(style: StyleConfig, tasks: frozenset[Task]) -> StyleConfig:
    tables = {
        name: {task: weight for task, weight in getattr(style.tasks, name).items() if task in tasks}
        for name in SECTIONS
    }
    return style.model_copy(update={"tasks": style.tasks.model_copy(update=tables)})
