"""The jobs: one module a command."""
