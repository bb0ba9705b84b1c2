"""From caption rows to TIPO training text: records, joins, rendering, the grammar that checks it."""
