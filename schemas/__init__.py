"""What JoyFleet stores and sends: every table it writes is declared here, field by field, and nowhere else."""
