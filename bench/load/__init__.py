"""The load generator: raw WebSocket subscribers and an HTTP client that cost as little as Python allows."""
