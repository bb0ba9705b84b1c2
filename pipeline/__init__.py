"""JoyFleet's library: shards in, captions out, floor by floor (see docs/architecture.md)."""
