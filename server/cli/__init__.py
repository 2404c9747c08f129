"""The command `tessera doctor`, which checks the machine and a server."""
