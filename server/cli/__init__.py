"""Subcommands that inspect a machine and a server."""
