"""JoyFleet's library: shards in, captions out, floor by floor (see the drawing in the README)."""
