"""Channels, subscriptions, encode-once fan-out and conflation. Knows events and bytes; no sockets, no contracts."""
