"""How a stored field is declared: name, type, meaning with unit, and whether it may be null."""

import pyarrow as pa


def field(name: str, dtype: pa.DataType, doc: str, *, nullable: bool = False) -> pa.Field:
    """Return a field whose metadata has its meaning, so that a reader of the file finds it there."""
    return pa.field(name, dtype, nullable=nullable, metadata={"doc": doc})
