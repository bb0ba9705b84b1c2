"""When an answer counts as a loop while it is still being written: what `sampling.stop_loops` asks of vLLM."""

LOOP_REPEATS = 4
LOOP_TOKENS = (8, 32)
"""A tail is a loop when 8 to 32 tokens stand there four times over: never before 32 tokens of nothing new.
A shorter period counts by its multiples, so `no, ` must come 16 times. On the labelled set (the stand-in's
tokens, two a word of prose) four times cuts no clean text and three times cuts a poem; periods up to 16, 32
and 64 tokens spare 21, 30 and 34 % of the loops' tokens (`tests/quality/test_stop_loops.py`). vLLM tries
each period after every token in its scheduler, 0.2 us each (measured on a busy core): longer loops are left to
`pipeline.quality`, since four rounds of them are most of an answer."""
