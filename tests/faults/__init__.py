"""Faults put into the library by hand, to see whether the suite finds them."""
