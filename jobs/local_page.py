"""Pages that a verb serves to a browser on this machine: the only module that imports gradio."""

# An optional extra with its own lock file: it may be missing where types are checked.
import gradio as gr  # pyright: ignore[reportMissingImports]
from gradio.themes import Base  # pyright: ignore[reportMissingImports]

HOST = "127.0.0.1"
"""Anyone who reaches the port can use what is behind the page, so it is open to this machine only."""

__all__ = ["HOST", "gr", "serve"]


def serve(app: gr.Blocks, port: int, *, wait: bool, head: str | None = None) -> str:
    """Serve the page to this machine and return its address; with `wait`, until Ctrl-C. `head` is HTML."""
    # Fonts of the system: the default theme fetches its own from Google.
    theme = Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    launched = app.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        quiet=True,
        theme=theme,
        footer_links=[],
        prevent_thread_lock=not wait,
        head=head,
    )
    return launched[1]
