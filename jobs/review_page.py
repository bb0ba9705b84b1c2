"""The page of `joyfleet review`: one row at a time, decided with the keyboard."""

import html
from typing import Any

from jobs.local_page import gr
from jobs.review_session import Review

# A key clicks the button with its id. Keys of a text box are its own, except those that end the editing.
KEYS = """
<script>
const BUTTONS = {
  a: "accept", r: "reject", u: "undo", j: "next", k: "previous", ArrowRight: "next", ArrowLeft: "previous",
};
const click = (id) => document.getElementById(id)?.click();
document.addEventListener("keydown", (event) => {
  const box = event.target.closest("textarea, input");
  if (box) {
    const done = event.key === "Enter" && (event.ctrlKey || event.metaKey);
    if (!done && event.key !== "Escape") return;
    box.blur();
    if (done) click("accept");
  } else if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) {
    return;
  } else if (event.key === "e") {
    document.querySelector("#text textarea")?.focus();
  } else if (event.key in BUTTONS) {
    click(BUTTONS[event.key]);
  } else {
    return;
  }
  event.preventDefault();
});
</script>
"""


def build_app(review: Review) -> gr.Blocks:
    """Return the page: the picture on the left, the text and what is known of it on the right."""
    with gr.Blocks(title="JoyFleet review", analytics_enabled=False) as app:
        # Kept by the browser: the row that is on the screen, which may lag behind the server's.
        shown = gr.Number(value=0, precision=0, visible="hidden")
        progress = gr.HTML()
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                picture = gr.HTML()
            with gr.Column(scale=1, min_width=320):
                about = gr.HTML()
                text = gr.Textbox(label="Caption", lines=8, max_lines=20, elem_id="text")
                with gr.Row():
                    accept = gr.Button("Accept (a)", variant="primary", elem_id="accept", min_width=90)
                    reject = gr.Button("Reject (r)", variant="stop", elem_id="reject", min_width=90)
                    undo = gr.Button("Undo (u)", elem_id="undo", min_width=90)
                with gr.Row():
                    previous = gr.Button("Previous (k)", elem_id="previous", min_width=90)
                    following = gr.Button("Next (j)", elem_id="next", min_width=90)
        outputs = [shown, progress, picture, about, text]

        def show(number: int) -> list[Any]:
            view = review.view(number)
            return [view.number, view.progress, view.picture, view.about, view.text]

        def on_accept(number: float, caption: str) -> list[Any]:
            mistake = review.accept(int(number), caption)
            if mistake:
                # The page keeps what was typed.
                raise gr.Error(html.escape(mistake), print_exception=False)
            return show(review.next_undecided(int(number)))

        def on_reject(number: float) -> list[Any]:
            review.reject(int(number))
            return show(review.next_undecided(int(number)))

        def on_undo(number: float) -> list[Any]:
            review.undo(int(number))
            return show(int(number))

        gr.on([app.load], lambda: show(0), None, outputs, show_progress="hidden")
        accept.click(on_accept, [shown, text], outputs, show_progress="hidden")
        reject.click(on_reject, [shown], outputs, show_progress="hidden")
        undo.click(on_undo, [shown], outputs, show_progress="hidden")
        previous.click(lambda number: show(int(number) - 1), [shown], outputs, show_progress="hidden")
        following.click(lambda number: show(int(number) + 1), [shown], outputs, show_progress="hidden")
    return app
