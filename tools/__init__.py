"""Programs for developers of JoyFleet; they are not installed with the package."""
