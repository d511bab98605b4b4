"""Sans-I/O protocols, bytes in and events out; ``dialects/`` holds one file per client contract."""
