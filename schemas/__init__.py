"""Schemas of everything that JoyFleet stores or passes between stages, field by field."""
