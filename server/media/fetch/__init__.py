"""Network and files to bytes in shared memory; the only code that connects to other hosts."""
