"""Several processes as one run, and the hardware that they run on."""
