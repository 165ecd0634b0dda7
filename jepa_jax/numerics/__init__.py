"""What every calculation has to know of numbers and of the hardware: dtypes, precision, platforms."""
