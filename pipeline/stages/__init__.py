"""The steps of the data's way as plain callables over one batch; none of them knows Ray."""
