"""The WebSocket layer under the Autobahn test suite: an echo server for its fuzzing client."""
