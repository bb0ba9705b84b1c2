"""What JoyFleet costs, measured against something plain in the same run."""
