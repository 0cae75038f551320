"""What the machine gives: instruction set, threads, scratch memory, ready arrays."""
