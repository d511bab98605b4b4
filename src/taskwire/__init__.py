"""Taskwire: a self-hosted server that carries long-running media work live to its end."""

__version__ = "0.1.0"
