"""Reading and captioning as plain callables over one batch; none of them uses Ray."""
