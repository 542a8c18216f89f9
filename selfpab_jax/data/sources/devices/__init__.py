"""Files as accelerometers write them."""
