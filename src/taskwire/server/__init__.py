"""Sockets and HTTP: the asyncio protocol that pumps bytes into a wire session, and what holds the process together."""
